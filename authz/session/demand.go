package session

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Demand is what a route asks of a session beyond being live. The zero value asks nothing.
type Demand struct {
	Providers []string      `json:"p,omitempty"` // one of these signed the person in; none means any
	MaxAge    time.Duration `json:"a,omitempty"` // how long ago the provider may have asked for credentials; 0 means any time
	ACR       []string      `json:"c,omitempty"` // one of these authentication classes; none means any
}

// Unmet says what a session lacks, for a log; "" when it is good. A provider that does not say when or how it asked for credentials has not
// met a demand for it.
func (d Demand) Unmet(s *Session, now time.Time) string {
	switch {
	case len(d.Providers) > 0 && !slices.Contains(d.Providers, s.Provider):
		return fmt.Sprintf("the session is of the provider %s", s.Provider)
	case d.MaxAge > 0 && s.AuthTime.IsZero():
		return "the provider did not say when it asked for credentials (auth_time)"
	case d.MaxAge > 0 && now.Sub(s.AuthTime) > d.MaxAge:
		return fmt.Sprintf("the provider asked for credentials longer ago than %s", d.MaxAge)
	case len(d.ACR) > 0 && !slices.Contains(d.ACR, s.ACR):
		return fmt.Sprintf("the authentication class %q is none of those asked for", s.ACR)
	}
	return ""
}

// Names of the parameters that carry a demand to the sign-in page.
const (
	demandProvider = "idp"
	demandMaxAge   = "max_age"
	demandACR      = "acr"
)

// maxDemands bounds the values of one parameter. A configuration that asks for more has its routes decided all the same.
const maxDemands = 16

// AddTo adds the demand to the query of the sign-in page. It is no secret and is not sealed: a person who takes it away is asked again
// by the route.
func (d Demand) AddTo(q url.Values) {
	for _, name := range d.Providers[:min(len(d.Providers), maxDemands)] {
		q.Add(demandProvider, name)
	}
	if d.MaxAge > 0 {
		q.Set(demandMaxAge, strconv.Itoa(int(d.MaxAge/time.Second)))
	}
	for _, acr := range d.ACR[:min(len(d.ACR), maxDemands)] {
		q.Add(demandACR, acr)
	}
}

// DemandOf reads what AddTo has added. Anything else is no demand.
func DemandOf(q url.Values) (d Demand) {
	if names := q[demandProvider]; len(names) <= maxDemands {
		d.Providers = names
	}
	if seconds, err := strconv.ParseUint(q.Get(demandMaxAge), 10, 31); err == nil {
		d.MaxAge = time.Duration(seconds) * time.Second
	}
	if classes := q[demandACR]; len(classes) <= maxDemands {
		d.ACR = classes
	}
	return d
}
