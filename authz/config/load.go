package config

// Load reads, checks and completes the file at path. Every problem is reported at once: the error is a Problems.
func Load(path string) (*Config, error) { panic("unwritten") }

// Problem is one fault of a configuration.
type Problem struct {
	Position
	Field   string `json:"field"` // "routes[grafana].from"; "" for a fault of the file as a whole
	Message string `json:"message"`
}

// Problems is every fault found, in the order of the files.
type Problems []Problem

// Error prints one problem a line, as file:line:column: field: message.
func (p Problems) Error() string { panic("unwritten") }

// ParseURL parses an absolute http or https URL.
func ParseURL(s string) (URL, error) { panic("unwritten") }

// String returns the URL as it was given.
func (u URL) String() string { return u.raw }

// Scheme, Hostname, Port: lower case; the port that the scheme implies when none is given.
func (u URL) Scheme() string   { return u.scheme }
func (u URL) Hostname() string { panic("unwritten") }
func (u URL) Port() int        { panic("unwritten") }

// Host is host:port as it was given, in lower case; the port is left out when it was.
func (u URL) Host() string { return u.host }

// Path is "" or begins with "/".
func (u URL) Path() string { return u.path }

// IsZero says that no URL was given.
func (u URL) IsZero() bool { return u.raw == "" }

// Origin is scheme://host[:port].
func (u URL) Origin() string { return u.scheme + "://" + u.host }
