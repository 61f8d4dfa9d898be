package policy

import (
	"cmp"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Reads is what a policy can read of its input: at least what it reads for any request, never less. Names are sorted.
type Reads struct {
	User       []string // parts of input.user: id, email, email_verified, name, groups, claims
	Claims     []string // names in input.user.claims, when not all of them can be read
	AllClaims  bool
	Session    []string // parts of input.session: id, created, expires, auth_time, amr, acr
	Request    []string // parts of input.request: method, scheme, host, path, query, client_ip, headers
	Headers    []string // lower-case names of headers, when not all of them can be read
	AllHeaders bool
	Route      []string // parts of input.route: name, host, labels
	Data       []string // data documents and parts of them, as data.x.y: with all that is below

	// Uncacheable says why the decision depends on more than the input ("grafana.rego:7: time.now_ns reads the clock"); "" when it
	// does not.
	Uncacheable string
}

// document is a set of the documents of `input` that hold named parts. Rules pass them on whole and look into them later.
type document uint8

const (
	docInput document = 1 << iota
	docUser
	docClaims
	docSession
	docRequest
	docHeaders
	docRoute
	docEnd
)

// nested are the documents within documents; every other member is a part that is read whole.
var nested = map[document]map[string]document{
	docInput:   {"user": docUser, "session": docSession, "request": docRequest, "route": docRoute},
	docUser:    {"claims": docClaims},
	docRequest: {"headers": docHeaders},
}

// readSet collects the parts that are read.
type readSet struct {
	parts [docEnd]map[string]bool // by document
	all   document                // documents that are read whole
	data  map[string]ast.Ref      // what may be read of the data documents, by its text
	why   string                  // Reads.Uncacheable
	size  int                     // grows with every addition
}

// part notes that a member of a document is read.
func (s *readSet) part(d document, name string) {
	if s.parts[d] == nil {
		s.parts[d] = map[string]bool{}
	}
	if !s.parts[d][name] {
		s.parts[d][name] = true
		s.size++
	}
}

// whole notes that the documents are read with everything in them.
func (s *readSet) whole(docs document) {
	for d := docInput; d < docEnd; d <<= 1 {
		if docs&d == 0 || s.all&d != 0 {
			continue
		}
		s.all |= d
		s.size++
		for name, inner := range nested[d] {
			s.part(d, name)
			s.whole(inner)
		}
	}
}

// document notes that the data documents are read from a place downwards, if they have it.
func (s *readSet) document(ref ast.Ref) {
	if s.data == nil {
		s.data = map[string]ast.Ref{}
	}
	if name := ref.String(); s.data[name] == nil {
		s.data[name] = ref
		s.size++
	}
}

// places are those of the documents that are read, without those below another one. Sorted.
func (s *readSet) places(d *documents) (places []ast.Ref) {
	for _, ref := range s.data {
		covered := d.lacks(ref)
		for i := 1; i < len(ref) && !covered; i++ {
			covered = s.data[ref[:i].String()] != nil
		}
		if !covered {
			places = append(places, ref)
		}
	}
	slices.SortFunc(places, func(a, b ast.Ref) int { return cmp.Compare(a.String(), b.String()) })
	return places
}

func (s *readSet) unsteady(why string) {
	if s.why == "" {
		s.why = why
		s.size++
	}
}

// has says whether a member of a document is read.
func (s *readSet) has(d document, name string) bool { return s.all&d != 0 || s.parts[d][name] }

// documents are those that are looked for, read or looked into.
func (s *readSet) documents() document {
	docs := docInput
	for d := docInput; d < docEnd; d <<= 1 {
		for name, inner := range nested[d] {
			if s.has(d, name) {
				docs |= inner
			}
		}
	}
	return docs
}

// result lists what was collected, with the places of the data.
func (s *readSet) result(data []ast.Ref) Reads {
	r := Reads{
		User:        s.list(docUser, userParts),
		Session:     s.list(docSession, sessionParts),
		Request:     s.list(docRequest, requestParts),
		Route:       s.list(docRoute, routeParts),
		AllClaims:   s.all&docClaims != 0,
		AllHeaders:  s.all&docHeaders != 0,
		Uncacheable: s.why,
	}
	for _, ref := range data {
		r.Data = append(r.Data, ref.String())
	}
	if !r.AllClaims {
		r.Claims = slices.Sorted(maps.Keys(s.parts[docClaims]))
	}
	if !r.AllHeaders {
		r.Headers = slices.Sorted(maps.Keys(s.parts[docHeaders]))
	}
	return r
}

// list are the known parts of a document that are read. Others do not exist.
func (s *readSet) list(d document, known []string) (list []string) {
	for _, name := range known {
		if s.has(d, name) {
			list = append(list, name)
		}
	}
	return list
}
