package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"
)

// Bounds of what a policy may answer. Upstreams commonly refuse more than 8 KiB of headers in all.
const (
	maxReasons     = 16
	maxReason      = 512      // bytes; longer ones are cut
	maxClaims      = 16 << 10 // bytes of JSON
	maxHeaderBytes = 16 << 10 // names and values together
)

// outcome is one rule of the contract.
type outcome struct {
	name  string
	check func(types.Type) string          // at load: what is wrong with its type, "" when nothing is known to be
	read  func(ast.Value, *Decision) error // at run time
}

// outcomes are the rules of the contract, in the order in which they are read.
var outcomes = []outcome{
	{"allow", checkAllow, readAllow},
	{"deny", checkDeny, readDeny},
	{"claims", checkClaims, readClaims},
	{"headers", checkHeaders(checkRequestHeader), readHeaders},
	{"remove_headers", checkRemoveHeaders, readRemoveHeaders}, // after headers, which it is held against
	{"response_headers", checkHeaders(checkResponseHeader), readResponseHeaders},
	{"redirect", checkRedirect, readRedirect},
	{"status", checkStatus, readStatus},
	{"body", checkBody, readBody},
	{"metadata", checkMetadata, readMetadata},
}

// decision reads the query's result: for each rule that the policy has an array, which is empty where the rule is undefined.
func decision(result topdown.QueryResult, rules []outcome) (Decision, error) {
	var d Decision
	for _, o := range rules {
		term, ok := result[ast.Var(o.name)]
		if !ok {
			continue
		}
		list, ok := term.Value.(*ast.Array)
		if !ok {
			return Decision{}, fmt.Errorf("%s: unexpected result %s", o.name, term)
		}
		if list.Len() == 0 {
			continue
		}
		if weight(list.Elem(0).Value, maxResult) > maxResult {
			return Decision{}, fmt.Errorf("%s: has more than the %d bytes allowed", o.name, maxResult)
		}
		if err := o.read(list.Elem(0).Value, &d); err != nil {
			return Decision{}, fmt.Errorf("%s: %w", o.name, err)
		}
	}
	d.Allow = d.Allow && len(d.Reasons) == 0
	return d, nil
}

func readAllow(v ast.Value, d *Decision) error {
	if o, ok := v.(ast.Object); ok {
		return readObject(o, d)
	}
	b, ok := v.(ast.Boolean)
	if !ok {
		return fmt.Errorf("must be a boolean, not %s", typeName(v))
	}
	d.Allow = bool(b)
	return nil
}

func readDeny(v ast.Value, d *Decision) error {
	set, ok := v.(ast.Set)
	if !ok {
		return fmt.Errorf(`must be a set of reasons (deny contains "reason" if ...), not %s`, typeName(v))
	}
	for _, t := range set.Slice() {
		s, ok := t.Value.(ast.String)
		if !ok {
			return fmt.Errorf("a reason must be a string, not %s", typeName(t.Value))
		}
		d.Reasons = append(d.Reasons, printable(string(s)))
	}
	slices.Sort(d.Reasons)
	if len(d.Reasons) > maxReasons {
		d.Reasons = d.Reasons[:maxReasons:maxReasons]
	}
	return nil
}

// printable makes a reason fit for a page and a log line: valid UTF-8, no control characters, bounded.
func printable(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// reservedClaims are set by the token alone (RFC 7519, section 4.1; sid: OpenID Connect Front-Channel Logout 1.0; the others say who the
// user is). There are consumers that read names without regard to case.
var reservedClaims = []string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "email", "email_verified", "preferred_username", "name",
}

func reservedClaim(name string) bool {
	return slices.ContainsFunc(reservedClaims, func(own string) bool { return strings.EqualFold(name, own) }) ||
		strings.EqualFold(name, "groups") && name != "groups"
}

// checkGroups holds a policy's groups to what consumers of the token expect.
func checkGroups(claims map[string]any) error {
	groups, given := claims["groups"]
	if !given {
		return nil
	}
	list, ok := groups.([]any)
	if !ok || slices.ContainsFunc(list, func(g any) bool { _, ok := g.(string); return !ok }) {
		return errors.New("\"groups\" must be an array of strings")
	}
	return nil
}

func readClaims(v ast.Value, d *Decision) error {
	if o, ok := v.(ast.Object); ok {
		for _, key := range o.Keys() {
			if name, ok := key.Value.(ast.String); ok && reservedClaim(string(name)) {
				return fmt.Errorf("%q is set by the token itself and cannot be changed by a policy", string(name))
			}
		}
	}
	claims, text, err := jsonObject(v, maxClaims)
	if err == nil {
		err = checkGroups(claims)
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	d.Claims, d.ClaimsDigest = claims, hex.EncodeToString(sum[:])
	return nil
}

func readHeaders(v ast.Value, d *Decision) (err error) {
	d.Headers, err = headerMap(v, checkRequestHeader)
	return err
}

func readResponseHeaders(v ast.Value, d *Decision) (err error) {
	d.ResponseHeaders, err = headerMap(v, checkResponseHeader)
	return err
}

func headerMap(v ast.Value, check func(name, value string) error) (map[string]string, error) {
	o, ok := v.(ast.Object)
	if !ok {
		return nil, fmt.Errorf("must be an object, not %s", typeName(v))
	}
	headers := make(map[string]string, o.Len())
	size := 0
	err := o.Iter(func(k, v *ast.Term) error {
		key, ok := k.Value.(ast.String)
		if !ok {
			return fmt.Errorf("a header's name must be a string, not %s", typeName(k.Value))
		}
		name := strings.ToLower(string(key))
		if _, twice := headers[name]; twice {
			return fmt.Errorf("%q is there twice, in different case", name)
		}
		value, err := headerValue(v.Value)
		if name == "set-cookie" {
			value, err = cookieValue(v.Value)
		}
		if err == nil {
			err = checkHeader(name, value)
		}
		if err == nil {
			err = check(name, value)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", clip(name), err)
		}
		headers[name] = value
		size += len(name) + len(value)
		return nil
	})
	if err == nil && size > maxHeaderBytes {
		err = fmt.Errorf("%d bytes are more than the %d allowed", size, maxHeaderBytes)
	}
	return headers, err
}

// cookieValue is a string, or a list of one: Set-Cookie cannot be joined (RFC 9110, section 5.3).
func cookieValue(v ast.Value) (string, error) {
	if list := elements(v); len(list) == 1 {
		v = list[0].Value
	} else if list != nil {
		return "", errors.New("one answer can set one cookie")
	}
	s, ok := v.(ast.String)
	if !ok {
		return "", fmt.Errorf("must be a string, not %s", typeName(v))
	}
	return string(s), nil
}

// headerValue is a string, or several joined by "," (RFC 9110, section 5.2). A part that holds a comma would read as two.
func headerValue(v ast.Value) (string, error) {
	if s, ok := v.(ast.String); ok {
		return string(s), nil
	}
	parts := elements(v)
	if parts == nil {
		return "", fmt.Errorf("must be a string or an array of strings, not %s", typeName(v))
	}
	values := make([]string, len(parts))
	for i, t := range parts {
		s, ok := t.Value.(ast.String)
		if !ok {
			return "", fmt.Errorf("must be an array of strings; one is %s", typeName(t.Value))
		}
		if strings.Contains(string(s), ",") {
			return "", fmt.Errorf("%q holds a comma, so it would read as two values", clip(string(s)))
		}
		values[i] = string(s)
	}
	return strings.Join(values, ","), nil
}

// typeName is the type of a value with its article.
func typeName(v ast.Value) string {
	switch name := ast.ValueName(v); name {
	case "array", "object":
		return "an " + name
	case "null":
		return name
	default:
		return "a " + name
	}
}
