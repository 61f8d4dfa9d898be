package policy

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
)

// inputPart is a part of the input itself that is read whole: input.client_certificate, and what OPA's Envoy plugin puts beside
// input.attributes.
type inputPart struct {
	name  string
	key   func(b []byte, r *Request) ([]byte, error) // appends all that the value is made of
	value func(r *Request) (ast.Value, error)        // nil when it is undefined
}

func chooseParts(s *readSet) (chosen []inputPart) {
	for _, part := range []inputPart{
		{partCertificate, certificateKey, clientCertificate},
		{"parsed_path", targetKey, parsedPath},
		{"parsed_query", targetKey, parsedQuery},
		{"parsed_body", bodyKey, func(r *Request) (ast.Value, error) { v, _, err := parsedBody(r); return v, err }},
		{"truncated_body", bodyKey, func(r *Request) (ast.Value, error) {
			_, truncated, err := parsedBody(r)
			return ast.Boolean(truncated), err
		}},
		{"source_principal", principalKey, sourcePrincipal},
		{"version", func(b []byte, _ *Request) ([]byte, error) { return b, nil }, version3},
	} {
		if s.has(docInput, part.name) {
			chosen = append(chosen, part)
		}
	}
	return chosen
}

// version3 says what the shape of the input is: that which the plugin makes of version 3 of Envoy's API.
func version3(*Request) (ast.Value, error) {
	return ast.NewObject(
		[2]*ast.Term{ast.InternedTerm("ext_authz"), ast.StringTerm("v3")},
		[2]*ast.Term{ast.InternedTerm("encoding"), ast.StringTerm("protojson")},
	), nil
}

func targetKey(b []byte, r *Request) ([]byte, error) { return appendText(b, r.Target), nil }

// parsedPath is the path's segments. It is decoded before it is divided, so "%2F" divides too.
func parsedPath(r *Request) (ast.Value, error) {
	path, _, _ := strings.Cut(r.Target, "?")
	path, err := url.PathUnescape(path)
	if err != nil {
		return nil, errors.New("the path cannot be decoded")
	}
	return stringArray(strings.Split(strings.TrimLeft(path, "/"), "/")), nil
}

func parsedQuery(r *Request) (ast.Value, error) {
	_, query, _ := strings.Cut(r.Target, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("a parameter cannot be decoded or holds a semicolon")
	}
	return ast.InterfaceToValue(lists(values))
}

// lists has the values as arrays of any.
func lists(values url.Values) map[string]any {
	out := make(map[string]any, len(values))
	for name, list := range values {
		out[name] = list
	}
	return out
}

func (r *Request) principal() (string, error) {
	source, err := r.attribute("source")
	principal, _ := source["principal"].(string)
	return principal, err
}

func principalKey(b []byte, r *Request) ([]byte, error) {
	principal, err := r.principal()
	return appendText(b, principal), err
}

func sourcePrincipal(r *Request) (ast.Value, error) {
	principal, err := r.principal()
	if principal == "" {
		return nil, err
	}
	return ast.String(principal), err
}

// bodyHeaders say what a body is and whether it is whole.
var bodyHeaders = []string{headerContentLength, headerContentType, headerPartial}

const (
	headerContentLength = "content-length"
	headerContentType   = "content-type"
	headerPartial       = "x-envoy-auth-partial-body" // "true": Envoy sent only the beginning
)

// body is the request's body as far as Envoy sent it. A body that is packed as bytes is in base64 there.
func (r *Request) body() (string, error) {
	request, err := r.attribute("request")
	if err != nil {
		return "", err
	}
	http, _ := request["http"].(map[string]any)
	if text, _ := http["body"].(string); text != "" {
		return text, nil
	}
	packed, _ := http["rawBody"].(string)
	raw, err := base64.StdEncoding.DecodeString(packed)
	return string(raw), err
}

func bodyKey(b []byte, r *Request) ([]byte, error) {
	for _, name := range bodyHeaders {
		value, ok := r.header(name)
		b = appendText(append(b, flag(ok)), value)
	}
	text, err := r.body()
	return appendText(b, text), err
}

// parsedBody is the body by its content type, null where there is none, where the type is none of those that are understood, and where Envoy
// did not send all of it.
func parsedBody(r *Request) (v ast.Value, truncated bool, err error) {
	if partial, _ := r.header(headerPartial); partial == "true" {
		return ast.NullValue, true, nil
	}
	kind, _ := r.header(headerContentType)
	parse := bodyParser(kind)
	if parse == nil {
		return ast.NullValue, false, nil
	}
	text, err := r.body()
	if err != nil || text == "" {
		return ast.NullValue, false, err
	}
	if length, ok := r.header(headerContentLength); ok {
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil {
			return nil, false, errors.New("the content length is no number")
		}
		if n > int64(len(text)) {
			return ast.NullValue, true, nil
		}
	}
	parsed, err := parse(kind, text)
	if err != nil {
		return nil, false, err
	}
	v, err = ast.InterfaceToValue(parsed)
	return v, false, err
}

// bodyParser chooses by what the content type holds, in the plugin's order; nil for other types. Of gRPC no body is sent.
func bodyParser(kind string) func(kind, text string) (any, error) {
	switch {
	case strings.Contains(kind, "application/json"):
		return parseJSON
	case strings.Contains(kind, "application/grpc"):
		return nil
	case strings.Contains(kind, "application/x-www-form-urlencoded"):
		return parseForm
	case strings.Contains(kind, "multipart/form-data"):
		return parseMultipart
	}
	return nil
}

func parseJSON(_, text string) (x any, err error) {
	if err := util.UnmarshalJSON([]byte(text), &x); err != nil {
		return nil, errors.New("the body is not the JSON that its content type says")
	}
	return x, nil
}

func parseForm(_, text string) (any, error) {
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, errors.New("the form cannot be decoded")
	}
	return lists(values), nil
}

// parseMultipart has for each name the values of the parts: JSON for parts that say so, text for others. Parts without a name are left out.
func parseMultipart(kind, text string) (any, error) {
	_, parameters, err := mime.ParseMediaType(kind)
	if err != nil {
		return nil, errors.New("the content type cannot be understood")
	}
	boundary, ok := parameters["boundary"]
	if !ok {
		return nil, nil
	}
	values := map[string]any{}
	for reader := multipart.NewReader(strings.NewReader(text), boundary); ; {
		part, err := reader.NextPart()
		if err == io.EOF {
			return values, nil
		}
		var content []byte
		if err == nil {
			content, err = io.ReadAll(part)
		}
		if err != nil {
			return nil, errors.New("the parts of the form cannot be read")
		}
		name := part.FormName()
		if name == "" {
			continue
		}
		var value any = string(content)
		if strings.Contains(part.Header.Get("Content-Type"), "application/json") {
			if value, err = parseJSON("", string(content)); err != nil {
				return nil, fmt.Errorf("part %q: %w", clip(name), err)
			}
		}
		list, _ := values[name].([]any)
		values[name] = append(list, value)
	}
}
