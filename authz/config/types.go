package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// Duration reads from YAML as Go's time.ParseDuration does ("30s", "14h"); it is never negative. In JSON and YAML it is written in the
// same form.
type Duration time.Duration

func parseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil && strings.Trim(s, "0123456789") == "":
		return 0, fmt.Errorf("%q has no unit; write for example %q", shorten(s), shorten(s)+"s")
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration; write numbers with units as in 30s, 5m or 1h30m", shorten(s))
	case d < 0:
		return 0, fmt.Errorf("%q is negative; a duration is 0s or more", shorten(s))
	}
	return Duration(d), nil
}

// String is the duration as Go writes it, "1h30m0s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the duration as String does.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// MarshalYAML writes the duration as String does.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// Secret is a string that prints as "[redacted]", whatever prints it. Its value is string(s).
type Secret string

const redacted = "[redacted]"

// String is "[redacted]".
func (s Secret) String() string { return redacted }

// Format writes "[redacted]" for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue is "[redacted]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON writes "[redacted]".
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalYAML writes "[redacted]".
func (s Secret) MarshalYAML() (any, error) { return redacted, nil }

func parseUnauthenticated(s string) (Unauthenticated, error) {
	switch u := Unauthenticated(s); u {
	case Login, Unauthorized, Forbidden:
		return u, nil
	}
	return "", fmt.Errorf("%q is not known; it is login, 401 or 403", shorten(s))
}

var errNoURL = errors.New("is empty; write a URL as https://host.example.com")
