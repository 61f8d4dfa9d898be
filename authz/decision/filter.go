package decision

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Filter chooses records. Empty fields choose all.
type Filter struct {
	Route   string
	User    string // the subject, or the e-mail in any case
	Outcome string // one of Outcomes
	Status  int
	Path    string // how the path begins
}

// Match says whether a record is chosen. It is asked before fields are masked.
func (f Filter) Match(r *Record) bool {
	return (f.Route == "" || f.Route == r.Route) &&
		(f.User == "" || f.User == r.Subject || strings.EqualFold(f.User, r.Email)) &&
		(f.Outcome == "" || f.Outcome == r.Outcome) &&
		(f.Status == 0 || f.Status == r.Status) &&
		strings.HasPrefix(r.Path, f.Path)
}

// Validate says what is wrong with a filter that could never match.
func (f Filter) Validate() error {
	if f.Outcome != "" && !slices.Contains(Outcomes(), f.Outcome) {
		return fmt.Errorf("outcome %q is not known; it is one of %s", f.Outcome, strings.Join(Outcomes(), ", "))
	}
	if f.Status != 0 && (f.Status < 100 || f.Status > 599) {
		return fmt.Errorf("status %d is not a status of HTTP; it is 100 to 599", f.Status)
	}
	if f.Path != "" && f.Path[0] != '/' {
		return fmt.Errorf("path %q does not begin with a slash", f.Path)
	}
	return nil
}

// Values is the filter as the query of a URL, which ParseFilter reads.
func (f Filter) Values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"route": f.Route, "user": f.User, "outcome": f.Outcome, "path": f.Path} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if f.Status != 0 {
		v.Set("status", strconv.Itoa(f.Status))
	}
	return v
}

// ParseFilter reads a filter from a query, and ignores what is not of it. The filter is valid.
func ParseFilter(v url.Values) (Filter, error) {
	f := Filter{Route: v.Get("route"), User: v.Get("user"), Outcome: v.Get("outcome"), Path: v.Get("path")}
	if status := v.Get("status"); status != "" {
		n, err := strconv.Atoi(status)
		if err != nil {
			return f, fmt.Errorf("status %q is not a number", status)
		}
		f.Status = n
	}
	return f, f.Validate()
}
