package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Document is an Input as JSON: what rules read as `input`, with nothing left out. Requests are captured and given to the command line in this
// form. Fields that are empty are left out, as they are undefined to rules or empty.
type Document struct {
	User    *UserDocument    `json:"user,omitempty"`
	Session *SessionDocument `json:"session,omitempty"`
	Request RequestDocument  `json:"request"`
	Route   RouteDocument    `json:"route"`

	// Attributes are what else Envoy says of the request (Request.Attribute), where the route's policy reads of it: input.attributes, the body,
	// the client's certificate.
	Attributes map[string]map[string]any `json:"attributes,omitempty"`
}

// UserDocument is input.user.
type UserDocument struct {
	ID            string         `json:"id"`
	Email         string         `json:"email"`
	EmailVerified bool           `json:"email_verified"`
	Name          string         `json:"name"`
	Groups        []string       `json:"groups"`
	Claims        map[string]any `json:"claims"`
}

// SessionDocument is input.session. Times in Unix seconds.
type SessionDocument struct {
	ID       string   `json:"id"`
	Created  int64    `json:"created,omitempty"`
	Expires  int64    `json:"expires,omitempty"`
	AuthTime int64    `json:"auth_time,omitempty"`
	AMR      []string `json:"amr"`
	ACR      string   `json:"acr,omitempty"`
}

// RequestDocument is input.request. RawQuery is there only for a query that cannot be decoded, which denies when a policy reads it.
type RequestDocument struct {
	Method   string              `json:"method"`
	Scheme   string              `json:"scheme,omitempty"`
	Host     string              `json:"host,omitempty"`
	Path     string              `json:"path"`
	Query    map[string][]string `json:"query,omitempty"`
	RawQuery string              `json:"raw_query,omitempty"`
	Headers  map[string]string   `json:"headers"`
	ClientIP string              `json:"client_ip,omitempty"`
}

// RouteDocument is input.route.
type RouteDocument struct {
	Name   string            `json:"name"`
	Host   string            `json:"host,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Document returns the input as JSON has it. Headers are those that Envoy sent.
func (in *Input) Document() Document {
	d := Document{
		Request: RequestDocument{
			Method: in.Request.Method, Scheme: in.Request.Scheme, Host: in.Request.Host, Path: in.Request.Path,
			Headers: map[string]string{}, ClientIP: in.Request.ClientIP,
		},
		Route: RouteDocument{Name: in.Route.Name, Host: in.Route.Host, Labels: in.Route.Labels},
	}
	if u := in.User; u != nil {
		d.User = &UserDocument{u.ID, u.Email, u.EmailVerified, u.Name, nonNil(u.Groups), maps.Clone(u.Claims)}
		if d.User.Claims == nil {
			d.User.Claims = map[string]any{}
		}
	}
	if s := in.Session; s != nil {
		d.Session = &SessionDocument{s.ID, s.Created, s.Expires, s.AuthTime, nonNil(s.AMR), s.ACR}
	}
	if in.Request.Names != nil {
		for _, name := range in.Request.Names() {
			if value, ok := in.Request.header(name); ok {
				d.Request.Headers[name] = value
			}
		}
	}
	d.Attributes = in.Request.attributes()
	if values, err := queryValues(in.Request.Query); err != nil {
		d.Request.RawQuery = in.Request.Query
	} else if len(values) > 0 {
		d.Request.Query = values
	}
	return d
}

// attributeNames are those that Request.Attribute knows.
var attributeNames = []string{
	"contextExtensions", "destination", "metadataContext", "request", "routeMetadataContext", "source", "tlsSession",
}

// attributes are all that there are. One that cannot be read is left out: a policy that reads it has denied.
func (r *Request) attributes() map[string]map[string]any {
	if r.Attribute == nil {
		return nil
	}
	all := map[string]map[string]any{}
	for _, name := range attributeNames {
		if part, err := r.Attribute(name); err == nil && part != nil {
			all[name] = part
		}
	}
	return all
}

// attribute sets what of a request comes from its attributes. Without them the target and the authority are made of what there is.
func (d Document) attribute(r *Request) error {
	for name := range d.Attributes {
		if !slices.Contains(attributeNames, name) {
			return fmt.Errorf("attributes has no %s; it has %s", name, strings.Join(attributeNames, ", "))
		}
	}
	if d.Attributes != nil {
		r.Attribute = func(name string) (map[string]any, error) { return d.Attributes[name], nil }
	}
	r.Authority, r.Target = r.Host, r.Path
	if r.Query != "" {
		r.Target += "?" + r.Query
	}
	http, _ := d.Attributes["request"]["http"].(map[string]any)
	if host, ok := http["host"].(string); ok {
		r.Authority = host
	}
	if path, ok := http["path"].(string); ok {
		r.Target = path
	}
	return nil
}

func nonNil(l []string) []string { return append([]string{}, l...) }

// ParseInput reads a Document. The error names what is wrong in it.
func ParseInput(text []byte) (*Input, error) {
	var d Document
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	decoder.UseNumber()
	if err := decoder.Decode(&d); err != nil {
		return nil, fmt.Errorf("the input is no document of user, session, request and route: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("the input has more than one document")
	}
	return d.Input()
}

// Input is what the document stands for. The error says which of its parts no request can have.
func (d Document) Input() (*Input, error) {
	r := d.Request
	if r.Method == "" || !strings.HasPrefix(r.Path, "/") {
		return nil, errors.New("request.method and request.path are required; a path begins with a slash")
	}
	if strings.Contains(r.Path, "?") {
		return nil, errors.New("request.path has a query; put it into request.query, as name and array of values")
	}
	for name := range r.Headers {
		if name != strings.ToLower(name) {
			return nil, fmt.Errorf("request.headers[%q]: header names are in lower case", name)
		}
	}
	in := &Input{
		Request: Request{
			Method: r.Method, Scheme: r.Scheme, Host: r.Host, Path: r.Path, Query: r.RawQuery, ClientIP: r.ClientIP,
			Headers: func(name string) (string, bool) { value, ok := r.Headers[name]; return value, ok },
			Names:   func() []string { return slices.Sorted(maps.Keys(r.Headers)) },
		},
		Route: Route{Name: d.Route.Name, Host: d.Route.Host, Labels: d.Route.Labels},
	}
	if len(r.Query) > 0 {
		in.Request.Query = url.Values(r.Query).Encode()
	}
	if err := d.attribute(&in.Request); err != nil {
		return nil, err
	}
	if u := d.User; u != nil {
		user := User(*u)
		in.User = &user
	}
	if s := d.Session; s != nil {
		in.Session = &Session{ID: s.ID, Created: s.Created, Expires: s.Expires, AuthTime: s.AuthTime, AMR: s.AMR, ACR: s.ACR}
	}
	return in, nil
}
