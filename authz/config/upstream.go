package config

import (
	"slices"
	"time"
)

// HealthCheck says how each endpoint of an upstream is asked whether it works. While none does, requests are answered 503 at once. Exactly one of
// Path and GRPCService is given.
type HealthCheck struct {
	Path               string   `yaml:"path"`                // asked with GET
	GRPCService        *string  `yaml:"grpc_service"`        // asked for by gRPC's health checking protocol; "" is the server as a whole
	Interval           Duration `yaml:"interval"`            // 10s by default
	Timeout            Duration `yaml:"timeout"`             // 1s by default and at most: the first check holds up other changes
	HealthyThreshold   uint32   `yaml:"healthy_threshold"`   // good answers in a row until a sick endpoint is used again; 2 by default
	UnhealthyThreshold uint32   `yaml:"unhealthy_threshold"` // bad ones in a row until it is not; 3 by default
	ExpectedStatuses   []uint32 `yaml:"expected_statuses"`   // of an answer that is good; 200 by default
}

// OutlierDetection leaves an endpoint alone that answers with 5xx, or does not let itself be connected to, several times in a row.
type OutlierDetection struct {
	Consecutive5xx     uint32   `yaml:"consecutive_5xx"`      // 5 by default
	Interval           Duration `yaml:"interval"`             // how often it is looked at who may come back; 10s by default
	BaseEjectionTime   Duration `yaml:"base_ejection_time"`   // times how often it was ejected; 30s by default
	MaxEjectionPercent uint32   `yaml:"max_ejection_percent"` // of the endpoints, at a time; 50 by default
}

// CircuitBreaker bounds what is asked of an upstream at a time, by each Envoy; more is answered 503 at once. Routes whose upstream and settings of it
// are the same are counted together.
type CircuitBreaker struct {
	MaxConnections     uint32  `yaml:"max_connections"`      // to each endpoint of HTTP/1.1; 4096 by default
	MaxPendingRequests uint32  `yaml:"max_pending_requests"` // that wait for a connection; 1024 by default
	MaxRequests        uint32  `yaml:"max_requests"`         // open ones, WebSockets among them; 4096 by default
	MaxRetries         *uint32 `yaml:"max_retries"`          // at a time; nil is RetryBudget
}

// RetryBudget is how many retries there may be at a time, in percent of the open requests. MinRetries may be there in any case.
const (
	RetryBudget = 20
	MinRetries  = 3
)

// The values of Route.LoadBalancing.
const (
	RoundRobin   = "round_robin"
	LeastRequest = "least_request"
	Random       = "random"
	RingHash     = "ring_hash"
	Maglev       = "maglev"
)

// LoadBalancings are the values of Route.LoadBalancing.
func LoadBalancings() []string { return []string{RoundRobin, LeastRequest, Random, RingHash, Maglev} }

// HashOn says what two requests have in common that go to the same endpoint. Exactly one is given. Requests without it go anywhere.
type HashOn struct {
	Cookie   string `yaml:"cookie"`    // name; Envoy sets one that a browser does not have yet
	Header   string `yaml:"header"`    // name, also of one that Doorward sets
	ClientIP bool   `yaml:"client_ip"` // the address behind trusted_hops
}

// Retry says when a request is sent again, if possible to another endpoint. Requests of other methods than GET, HEAD and OPTIONS are sent again only
// when the upstream has not seen them: after a ConnectFailure or a RefusedStream.
type Retry struct {
	On            Names    `yaml:"on"`              // of RetryReasons; ConnectFailure and RefusedStream by default
	Statuses      []uint32 `yaml:"statuses"`        // an answer with one of them is a reason too
	Attempts      uint32   `yaml:"attempts"`        // how often it is sent again at most; 2 by default
	PerTryTimeout Duration `yaml:"per_try_timeout"` // after which a try counts as failed; 0s, the default, for none
	UnsafeMethods bool     `yaml:"unsafe_methods"`  // for every reason whatever the method is: an order may be taken twice
}

// The values of Retry.On.
const (
	ConnectFailure = "connect_failure"
	RefusedStream  = "refused_stream"
	Reset          = "reset"
	GatewayError   = "gateway_error"
	ServerError    = "5xx"
)

// RetryReasons are the values of Retry.On.
func RetryReasons() []string {
	return []string{ConnectFailure, RefusedStream, Reset, GatewayError, ServerError}
}

// Unseen are those of the reasons, or parts of them, of which it is certain that the upstream has not seen the request.
func (r Retry) Unseen() (reasons Names) {
	has := func(reason string) bool { return slices.Contains(r.On, reason) }
	if has(ConnectFailure) || has(GatewayError) || has(ServerError) {
		reasons = append(reasons, ConnectFailure)
	}
	if has(RefusedStream) || has(Reset) || has(ServerError) {
		reasons = append(reasons, RefusedStream)
	}
	return reasons
}

// Answered says whether there are reasons for which the upstream may have seen the request.
func (r Retry) Answered() bool {
	return len(r.Statuses) > 0 || slices.ContainsFunc(r.On, func(reason string) bool { return reason != ConnectFailure && reason != RefusedStream })
}

// Mirror is an upstream that gets copies of the requests that are let through; its answers are thrown away. The copies tell nobody who the user is,
// unless WithIdentity says so: whoever has an identity JWT can show it to the route's own application, which takes it.
type Mirror struct {
	To           UpstreamURL `yaml:"to"`
	Percent      uint32      `yaml:"percent"`       // of the requests, 1 to 100; 100 by default
	WithIdentity bool        `yaml:"with_identity"` // everything that the upstream gets
}

// HSTS is what the Strict-Transport-Security header of a route's responses says (RFC 6797, section 6.1).
type HSTS struct {
	MaxAge            Duration `yaml:"max_age"` // 8760h, a year, by default; 0s makes browsers forget the host
	IncludeSubdomains bool     `yaml:"include_subdomains"`
	Preload           bool     `yaml:"preload"`
}

// Cared says whether there is something to be said of the upstream as a whole: then all targets are endpoints of one, among which the
// requests are shared, and an endpoint that fails is left out.
func (r Route) Cared() bool {
	return r.HealthCheck != nil || r.OutlierDetection != nil || r.CircuitBreaker != nil || r.LoadBalancing != "" || r.Retry != nil
}

func (h *HealthCheck) setDefaults() {
	h.Interval, h.Timeout = Duration(10*time.Second), Duration(maxCheckTimeout)
	h.HealthyThreshold, h.UnhealthyThreshold = 2, 3
}

func (o *OutlierDetection) setDefaults() {
	*o = OutlierDetection{Consecutive5xx: 5, Interval: Duration(10 * time.Second), BaseEjectionTime: Duration(30 * time.Second), MaxEjectionPercent: 50}
}

func (c *CircuitBreaker) setDefaults() {
	*c = CircuitBreaker{MaxConnections: 4096, MaxPendingRequests: 1024, MaxRequests: 4096}
}

func (r *Retry) setDefaults()  { r.On, r.Attempts = Names{ConnectFailure, RefusedStream}, 2 }
func (m *Mirror) setDefaults() { m.Percent = 100 }
func (h *HSTS) setDefaults()   { h.MaxAge = Duration(365 * 24 * time.Hour) }
