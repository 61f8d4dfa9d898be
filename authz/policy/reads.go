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
	Headers    []string // lower-case names of headers, here or in the plugin's attributes, when not all of them can be read
	AllHeaders bool
	Route      []string // parts of input.route: name, host, labels
	Data       []string // data documents and parts of them, as data.x.y: with all that is below
	Plugin     []string // parts of what OPA's Envoy plugin gives: attributes.source.principal, parsed_path
	Body       bool     // the request's body, itself or parsed

	// Certificate says that input.client_certificate is read.
	Certificate bool

	// Uncacheable says why the decision depends on more than the input ("grafana.rego:7: time.now_ns reads the clock"); "" when it
	// does not.
	Uncacheable string
}

// document is a set of the documents of `input` that hold named parts. Rules pass them on whole and look into them later.
type document uint32

const (
	docInput document = 1 << iota
	docUser
	docClaims
	docSession
	docRequest
	docHeaders
	docRoute
	docAttributes // the first of those of OPA's Envoy plugin
	docAttributesRequest
	docHTTP
	docHTTPHeaders
	docSource
	docSourceAddress
	docSourceSocket
	docDestination
	docDestinationAddress
	docDestinationSocket
	docEnd
)

// nested are the documents within documents; every other member is a part that is read whole.
var nested = map[document]map[string]document{
	docInput:              {"user": docUser, "session": docSession, "request": docRequest, "route": docRoute, "attributes": docAttributes},
	docUser:               {"claims": docClaims},
	docRequest:            {"headers": docHeaders},
	docAttributes:         {"request": docAttributesRequest, "source": docSource, "destination": docDestination},
	docAttributesRequest:  {"http": docHTTP},
	docHTTP:               {"headers": docHTTPHeaders},
	docSource:             {"address": docSourceAddress},
	docSourceAddress:      {"socketAddress": docSourceSocket},
	docDestination:        {"address": docDestinationAddress},
	docDestinationAddress: {"socketAddress": docDestinationSocket},
}

// readSet collects the parts that are read.
type readSet struct {
	parts map[document]map[string]bool
	all   document           // documents that are read whole
	data  map[string]ast.Ref // what may be read of the data documents, by its text
	why   string             // Reads.Uncacheable
	size  int                // grows with every addition

	// plugin says that what OPA's Envoy plugin gives is named somewhere. Else it is no part of the input, also of one that is read whole: a
	// policy that logs its input does not ask for bodies by that.
	plugin bool
}

// part notes that a member of a document is read.
func (s *readSet) part(d document, name string) {
	if s.parts == nil {
		s.parts = map[document]map[string]bool{}
	}
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
			if s.exists(d, name) {
				s.part(d, name)
				s.whole(inner)
			}
		}
	}
}

// exists says whether the part is one of the input that the policy has.
func (s *readSet) exists(d document, name string) bool {
	return d != docInput || s.plugin || !slices.Contains(pluginParts, name)
}

// namesPlugin notes that a part of the plugin's is named.
func (s *readSet) namesPlugin() {
	if s.plugin {
		return
	}
	s.plugin = true
	s.size++
	if s.all&docInput != 0 {
		s.part(docInput, "attributes")
		s.whole(docAttributes)
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
func (s *readSet) has(d document, name string) bool {
	return s.exists(d, name) && (s.all&d != 0 || s.parts[d][name])
}

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
		AllHeaders:  s.all&(docHeaders|docHTTPHeaders) != 0,
		Plugin:      s.pluginPaths(),
		Body:        s.body(),
		Certificate: s.has(docInput, partCertificate),
		Uncacheable: s.why,
	}
	for _, ref := range data {
		r.Data = append(r.Data, ref.String())
	}
	if !r.AllClaims {
		r.Claims = slices.Sorted(maps.Keys(s.parts[docClaims]))
	}
	if !r.AllHeaders {
		r.Headers = s.headers()
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
