package policy

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// buildInput makes the value of `input`, without a round trip through JSON.
func buildInput(in *Input) (ast.Value, error) {
	root := ast.NewObjectWithCapacity(4)
	if in.User != nil {
		user, err := buildUser(in.User)
		if err != nil {
			return nil, err
		}
		insert(root, "user", user)
	}
	if in.Session != nil {
		insert(root, "session", buildSession(in.Session))
	}
	request, err := buildRequest(&in.Request)
	if err != nil {
		return nil, err
	}
	insert(root, "request", request)
	insert(root, "route", buildRoute(&in.Route))
	return root, nil
}

func buildUser(u *User) (ast.Value, error) {
	claims, err := ast.InterfaceToValue(u.Claims)
	if err != nil {
		return nil, fmt.Errorf("user.claims: %w", err)
	}
	if u.Claims == nil {
		claims = ast.NewObject()
	}
	o := ast.NewObjectWithCapacity(6)
	insert(o, "id", ast.String(u.ID))
	insert(o, "email", ast.String(u.Email))
	insert(o, "email_verified", ast.Boolean(u.EmailVerified))
	insert(o, "name", ast.String(u.Name))
	insert(o, "groups", stringArray(u.Groups))
	insert(o, "claims", claims)
	return o, nil
}

func buildSession(s *Session) ast.Value {
	o := ast.NewObjectWithCapacity(6)
	insert(o, "id", ast.String(s.ID))
	insertTime(o, "created", s.Created)
	insertTime(o, "expires", s.Expires)
	insertTime(o, "auth_time", s.AuthTime)
	insert(o, "amr", stringArray(s.AMR))
	if s.ACR != "" {
		insert(o, "acr", ast.String(s.ACR))
	}
	return o
}

func buildRequest(r *Request) (ast.Value, error) {
	query, err := buildQuery(r.Query)
	if err != nil {
		return nil, err
	}
	o := ast.NewObjectWithCapacity(7)
	insert(o, "method", ast.String(r.Method))
	insert(o, "scheme", ast.String(r.Scheme))
	insert(o, "host", ast.String(r.Host))
	insert(o, "path", ast.String(r.Path))
	insert(o, "client_ip", ast.String(r.ClientIP))
	insert(o, "query", query)
	insert(o, "headers", buildHeaders(r))
	return o, nil
}

func buildHeaders(r *Request) ast.Value {
	if r.Names == nil || r.Headers == nil {
		return ast.NewObject()
	}
	names := r.Names()
	o := ast.NewObjectWithCapacity(len(names))
	for _, name := range names {
		if v, ok := r.Headers(name); ok {
			insert(o, name, ast.String(v))
		}
	}
	return o
}

// buildQuery decodes the query. What cannot be decoded, and what programs split differently (";"), is an error: the upstream might
// understand it otherwise than the policy.
func buildQuery(raw string) (ast.Value, error) {
	values := map[string][]*ast.Term{}
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		if strings.Contains(pair, ";") {
			return nil, fmt.Errorf("request.query: %q holds a semicolon, which programs understand differently", clip(pair))
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil {
			return nil, fmt.Errorf("request.query: %q cannot be decoded", clip(pair))
		}
		values[name] = append(values[name], ast.StringTerm(value))
	}
	o := ast.NewObjectWithCapacity(len(values))
	for name, terms := range values {
		insert(o, name, ast.NewArray(terms...))
	}
	return o, nil
}

func buildRoute(r *Route) ast.Value {
	labels := ast.NewObjectWithCapacity(len(r.Labels))
	for name, value := range r.Labels {
		insert(labels, name, ast.String(value))
	}
	o := ast.NewObjectWithCapacity(3)
	insert(o, "name", ast.String(r.Name))
	insert(o, "host", ast.String(r.Host))
	insert(o, "labels", labels)
	return o
}

func insert(o ast.Object, key string, v ast.Value) {
	o.Insert(ast.InternedTerm(key), ast.NewTerm(v))
}

func insertTime(o ast.Object, key string, seconds int64) {
	if seconds != 0 {
		insert(o, key, ast.Number(strconv.FormatInt(seconds, 10)))
	}
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
