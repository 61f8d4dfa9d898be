package policy

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// plan says which parts of the input to build, and so what a decision can depend on. The cache's key is made from the same plan.
type plan struct {
	documents  document // that are looked into, or looked for, and are there even when nothing in them is read
	user       []member[*User]
	claims     []string // when not all
	allClaims  bool
	session    []member[*Session]
	request    []text
	query      bool
	headers    []string // when not all
	allHeaders bool
	route      []member[*Route]
	parts      []inputPart // of the input itself
	attributes *attributesPlan
}

// member is one part of a document. A nil value leaves it undefined.
type member[T any] struct {
	name  string
	value func(T) ast.Value
}

// newPlan takes from each document the members that are read.
func newPlan(s *readSet) *plan {
	r := s.result(nil)
	p := &plan{
		documents:  s.documents(),
		user:       choose(s, docUser, userMembers()),
		claims:     r.Claims,
		allClaims:  r.AllClaims,
		session:    choose(s, docSession, sessionMembers()),
		request:    chooseText(s),
		query:      s.has(docRequest, "query"),
		allHeaders: s.all&docHeaders != 0,
		route:      choose(s, docRoute, routeMembers()),
		parts:      chooseParts(s),
		attributes: newAttributesPlan(s),
	}
	if !p.allHeaders {
		p.headers = slices.Sorted(maps.Keys(s.parts[docHeaders]))
	}
	return p
}

func choose[T any](s *readSet, d document, all []member[T]) (chosen []member[T]) {
	for _, m := range all {
		if s.has(d, m.name) {
			chosen = append(chosen, m)
		}
	}
	return chosen
}

func userMembers() []member[*User] {
	return []member[*User]{
		{"id", func(u *User) ast.Value { return ast.String(u.ID) }},
		{"email", func(u *User) ast.Value { return ast.String(u.Email) }},
		{"email_verified", func(u *User) ast.Value { return ast.Boolean(u.EmailVerified) }},
		{"name", func(u *User) ast.Value { return ast.String(u.Name) }},
		{"groups", func(u *User) ast.Value { return stringArray(u.Groups) }},
	}
}

func sessionMembers() []member[*Session] {
	return []member[*Session]{
		{"id", func(s *Session) ast.Value { return ast.String(s.ID) }},
		{"created", func(s *Session) ast.Value { return unixTime(s.Created) }},
		{"expires", func(s *Session) ast.Value { return unixTime(s.Expires) }},
		{"auth_time", func(s *Session) ast.Value { return unixTime(s.AuthTime) }},
		{"amr", func(s *Session) ast.Value { return stringArray(s.AMR) }},
		{"acr", func(s *Session) ast.Value {
			if s.ACR == "" {
				return nil
			}
			return ast.String(s.ACR)
		}},
	}
}

// text is a part of the request that is a string as it stands.
type text struct {
	name  string
	value func(*Request) string
}

func chooseText(s *readSet) (chosen []text) {
	for _, t := range []text{
		{"method", func(r *Request) string { return r.Method }},
		{"scheme", func(r *Request) string { return r.Scheme }},
		{"host", func(r *Request) string { return r.Host }},
		{"path", func(r *Request) string { return r.Path }},
		{"client_ip", func(r *Request) string { return r.ClientIP }},
	} {
		if s.has(docRequest, t.name) {
			chosen = append(chosen, t)
		}
	}
	return chosen
}

func routeMembers() []member[*Route] {
	return []member[*Route]{
		{"name", func(r *Route) ast.Value { return ast.String(r.Name) }},
		{"host", func(r *Route) ast.Value { return ast.String(r.Host) }},
		{"labels", func(r *Route) ast.Value {
			labels := ast.NewObjectWithCapacity(len(r.Labels))
			for name, value := range r.Labels {
				insert(labels, name, ast.String(value))
			}
			return labels
		}},
	}
}

// build makes the value of `input`, without a round trip through JSON.
func (p *plan) build(in *Input) (ast.Value, error) {
	root := ast.NewObjectWithCapacity(4)
	if p.documents&docUser != 0 && in.User != nil {
		user, err := p.buildUser(in.User)
		if err != nil {
			return nil, err
		}
		insert(root, "user", user)
	}
	if p.documents&docSession != 0 && in.Session != nil {
		insert(root, "session", buildMembers(p.session, in.Session))
	}
	if p.documents&docRequest != 0 {
		request, err := p.buildRequest(&in.Request)
		if err != nil {
			return nil, err
		}
		insert(root, "request", request)
	}
	if p.documents&docRoute != 0 {
		insert(root, "route", buildMembers(p.route, &in.Route))
	}
	for _, part := range p.parts {
		value, err := part.value(&in.Request)
		if err != nil {
			return nil, fmt.Errorf("input.%s: %w", part.name, err)
		}
		insert(root, part.name, value)
	}
	if p.attributes != nil {
		attributes, err := p.attributes.build(&in.Request)
		if err != nil {
			return nil, err
		}
		insert(root, "attributes", attributes)
	}
	return root, nil
}

func buildMembers[T any](members []member[T], from T) ast.Object {
	o := ast.NewObjectWithCapacity(len(members) + 1)
	for _, m := range members {
		insert(o, m.name, m.value(from))
	}
	return o
}

func (p *plan) buildUser(u *User) (ast.Value, error) {
	o := buildMembers(p.user, u)
	if p.documents&docClaims == 0 {
		return o, nil
	}
	claims := ast.NewObjectWithCapacity(len(p.claims))
	add := func(name string, claim any) error {
		v, err := ast.InterfaceToValue(claim)
		if err != nil {
			return fmt.Errorf("input.user.claims[%q]: %w", name, err)
		}
		insert(claims, name, v)
		return nil
	}
	if p.allClaims {
		for name, claim := range u.Claims {
			if err := add(name, claim); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range p.claims {
		if claim, ok := u.Claims[name]; ok {
			if err := add(name, claim); err != nil {
				return nil, err
			}
		}
	}
	insert(o, "claims", claims)
	return o, nil
}

func (p *plan) buildRequest(r *Request) (ast.Value, error) {
	o := ast.NewObjectWithCapacity(len(p.request) + 2)
	for _, t := range p.request {
		insert(o, t.name, ast.String(t.value(r)))
	}
	if p.query {
		query, err := buildQuery(r.Query)
		if err != nil {
			return nil, err
		}
		insert(o, "query", query)
	}
	if p.documents&docHeaders == 0 {
		return o, nil
	}
	names := p.headers
	if p.allHeaders && r.Names != nil {
		names = r.Names()
	}
	headers := ast.NewObjectWithCapacity(len(names))
	for _, name := range names {
		if value, ok := r.header(name); ok {
			insert(headers, name, ast.String(value))
		}
	}
	insert(o, "headers", headers)
	return o, nil
}

func (r *Request) header(name string) (string, bool) {
	if r.Headers == nil {
		return "", false
	}
	return r.Headers(name)
}

// buildQuery makes the value of the query.
func buildQuery(raw string) (ast.Value, error) {
	values, err := queryValues(raw)
	if err != nil {
		return nil, err
	}
	o := ast.NewObjectWithCapacity(len(values))
	for name, list := range values {
		insert(o, name, stringArray(list))
	}
	return o, nil
}

// queryValues decodes the query. What cannot be decoded, and what programs split differently (";"), is an error: the upstream might
// understand it otherwise than the policy.
func queryValues(raw string) (map[string][]string, error) {
	values := map[string][]string{}
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		if strings.Contains(pair, ";") {
			return nil, errors.New("input.request.query: a parameter holds a semicolon, which programs understand differently")
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil {
			return nil, errors.New("input.request.query: a parameter cannot be decoded")
		}
		values[name] = append(values[name], value)
	}
	return values, nil
}

// insert leaves an undefined member out.
func insert(o ast.Object, key string, v ast.Value) {
	if v != nil {
		o.Insert(ast.InternedTerm(key), ast.NewTerm(v))
	}
}

func unixTime(seconds int64) ast.Value {
	if seconds == 0 {
		return nil
	}
	return ast.Number(strconv.FormatInt(seconds, 10))
}

func stringArray(list []string) ast.Value {
	terms := make([]*ast.Term, len(list))
	for i, s := range list {
		terms[i] = ast.StringTerm(s)
	}
	return ast.NewArray(terms...)
}

// clip bounds what an error quotes of a request.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}
