package config

import "time"

// setDefaults gives every key its default before the file is read. The paths follow once the file's directory is known.
func (c *Config) setDefaults() {
	c.Listen = Listen{HTTPS: ":443", HTTP: ":80"}
	c.Session = Session{Lifetime: Duration(14 * time.Hour), RefreshInterval: Duration(10 * time.Minute), MaxStreams: 100}
	c.JWT = JWT{
		Header:        "X-Pomerium-Jwt-Assertion",
		Lifetime:      Duration(maxTokenLifetime),
		SizeBudget:    4096,
		ConsumerCache: Duration(time.Hour),
		RotateEvery:   Duration(90 * 24 * time.Hour),
	}
	c.Paths = Paths{Prefix: "/.pomerium", JWKS: "/.well-known/pomerium/jwks.json"}
	c.Edge = Edge{EscapedSlashes: "reject", UnderscoreHeaders: "reject"}
	c.DecisionLog = defaultDecisionLog()
	c.TLS.Profile = TLSIntermediate
}

func defaultDecisionLog() DecisionLog {
	return DecisionLog{To: DecisionsStderr, MaxSize: 100 << 20, Keep: 5, SampleAllowed: 1}
}

func (r *Route) setDefaults() {
	timeout, idle := Duration(30*time.Second), Duration(5*time.Minute)
	r.Unauthenticated, r.Timeout, r.IdleTimeout = Login, &timeout, &idle
	r.PolicyBodyBytes = 8 << 10
}

func (idp *IDP) setDefaults() {
	idp.Scopes, idp.GroupsClaim, idp.GroupsOverage = []string{"openid", "profile", "email"}, "groups", "refuse"
}

func (i *TokenIssuer) setDefaults() {
	i.Algorithms, i.GroupsClaim = Names{"RS256", "ES256"}, "groups"
}

func (c *CORS) setDefaults() {
	c.AllowMethods, c.MaxAge = Names{"GET", "HEAD", "POST"}, Duration(10*time.Minute)
}

func (t *Target) setDefaults()   { t.Weight = 1 }
func (r *Redirect) setDefaults() { r.Status = 302 }
func (r *Response) setDefaults() { r.Status = 200 }
func (b *Bundle) setDefaults()   { b.Poll = Duration(time.Minute) }
func (s *Signing) setDefaults()  { s.Algorithm = "RS256" }
