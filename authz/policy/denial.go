package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

// Bounds of a policy's own denial and of what it says for logs.
const (
	maxRedirect = 4 << 10
	maxBody     = 16 << 10
	maxMetadata = 16 << 10   // bytes of JSON
	ownMetadata = "doorward" // begins the names under which authz says whose open stream a request is, and who is there
	maxRemoved  = 64         // names
)

// Content types of a denial's body.
const (
	textBody = "text/plain; charset=utf-8"
	jsonBody = "application/json"
)

// checkRemovedHeader refuses what the upstream cannot do without and what is ours to remove. Cookies may go as a whole.
func checkRemovedHeader(name, _ string) error {
	if name == "cookie" {
		return nil
	}
	return checkRequestHeader(name, "")
}

func checkRemoveHeaders(t types.Type) string {
	return checkKind(t, isStrings, "a set or an array of names")
}

func checkRedirect(t types.Type) string { return checkKind(t, isString, "a string") }
func checkStatus(t types.Type) string   { return checkKind(t, isNumber, "a number") }

func checkBody(t types.Type) string {
	return checkKind(t, func(t types.Type) bool { return isString(t) || isObject(t) }, "a string or an object")
}

func checkMetadata(t types.Type) string { return checkKind(t, isObject, "an object") }

func isNumber(t types.Type) bool { _, ok := t.(types.Number); return ok }
func isObject(t types.Type) bool { _, ok := t.(*types.Object); return ok }

func checkKind(t types.Type, ok func(types.Type) bool, want string) string {
	if only(t, ok) {
		return ""
	}
	return wrongType(want, t)
}

func readRemoveHeaders(v ast.Value, d *Decision) error {
	terms := elements(v)
	if terms == nil {
		return fmt.Errorf("must be a set or an array of names, not %s", typeName(v))
	}
	if len(terms) > maxRemoved {
		return fmt.Errorf("%d names are more than the %d allowed", len(terms), maxRemoved)
	}
	for _, t := range terms {
		s, ok := t.Value.(ast.String)
		if !ok {
			return fmt.Errorf("a header's name must be a string, not %s", typeName(t.Value))
		}
		name := strings.ToLower(string(s))
		err := checkHeader(name, "")
		if err == nil {
			err = checkRemovedHeader(name, "")
		}
		if err != nil {
			return fmt.Errorf("%q: %w", clip(name), err)
		}
		if _, set := d.Headers[name]; set {
			return fmt.Errorf("%q is removed here and set by `headers`", clip(name))
		}
		d.RemoveHeaders = append(d.RemoveHeaders, name)
	}
	return nil
}

func readRedirect(v ast.Value, d *Decision) error {
	s, ok := v.(ast.String)
	if !ok {
		return fmt.Errorf("must be a string, not %s", typeName(v))
	}
	d.Redirect = string(s)
	return checkTarget(d.Redirect)
}

// checkTarget lets through what every browser takes for the same place: a path of this host, or an https URL. Browsers read a second slash
// or a backslash as the beginning of a host, and leave out control characters (WHATWG URL Standard, section 4.4).
func checkTarget(target string) error {
	switch {
	case len(target) > maxRedirect:
		return fmt.Errorf("%d bytes are more than the %d allowed", len(target), maxRedirect)
	case strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r == '\\' || r >= 0x7f }):
		return errors.New("holds a space, a backslash, a control character or one beyond ASCII; encode it (urlquery.encode)")
	case strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "//"):
		return nil
	}
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return errors.New("must be a path that begins with one slash, or an https URL without a user")
	}
	return nil
}

func readStatus(v ast.Value, d *Decision) error {
	n, ok := v.(ast.Number)
	if !ok {
		return fmt.Errorf("must be a number, not %s", typeName(v))
	}
	status, err := strconv.Atoi(string(n))
	if err != nil || status < 400 || status > 599 {
		return fmt.Errorf("%s is no status of a denial: it is a whole number from 400 to 599", clip(string(n)))
	}
	d.Status = status
	return nil
}

func readBody(v ast.Value, d *Decision) error {
	switch v := v.(type) {
	case ast.String:
		d.Body, d.BodyType = strings.ToValidUTF8(string(v), "\uFFFD"), textBody
	case ast.Object:
		_, text, err := jsonObject(v, maxBody)
		if err != nil {
			return err
		}
		d.Body, d.BodyType = string(text)+"\n", jsonBody
	default:
		return fmt.Errorf("must be a string or an object, not %s", typeName(v))
	}
	if len(d.Body) > maxBody {
		return fmt.Errorf("%d bytes are more than the %d allowed", len(d.Body), maxBody)
	}
	return nil
}

func readMetadata(v ast.Value, d *Decision) (err error) {
	if d.Metadata, _, err = jsonObject(v, maxMetadata); err != nil {
		return err
	}
	for name := range d.Metadata {
		if name == ownMetadata || strings.HasPrefix(name, ownMetadata+".") {
			return fmt.Errorf("%q is Doorward's own name: choose another", name)
		}
	}
	return nil
}

// jsonObject is a value as Go's and as JSON, whose names are strings.
func jsonObject(v ast.Value, limit int) (map[string]any, []byte, error) {
	o, ok := v.(ast.Object)
	if !ok {
		return nil, nil, fmt.Errorf("must be an object, not %s", typeName(v))
	}
	for _, key := range o.Keys() {
		if _, ok := key.Value.(ast.String); !ok {
			return nil, nil, fmt.Errorf("must have strings as names, and one is %s", typeName(key.Value))
		}
	}
	x, err := ast.JSON(v)
	if err != nil {
		return nil, nil, err
	}
	object, ok := x.(map[string]any)
	if !ok {
		return nil, nil, fmt.Errorf("must be an object, not %s", typeName(v))
	}
	text, err := json.Marshal(object)
	if err == nil && len(text) > limit {
		err = fmt.Errorf("%d bytes of JSON are more than the %d allowed", len(text), limit)
	}
	return object, text, err
}
