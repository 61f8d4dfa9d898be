package login

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestProviderError(t *testing.T) {
	w := newWorld(t)
	const html = `<script>alert(1)</script>`
	for _, c := range []struct {
		query, wantTitle, wantMessage string
		status                        int
	}{
		{"error=access_denied&error_description=" + url.QueryEscape(html), "The sign-in was refused",
			"The sign-in was cancelled or is not allowed for you.\nIt says: " + html, 403},
		{"error=temporarily_unavailable", "The sign-in failed", "The sign-in service answered: temporarily_unavailable\nTry again", 503},
		{"error=" + url.QueryEscape(html), "The sign-in failed", "The sign-in service answered: " + html + "\nTry again", 502},
		{"error=", "The sign-in failed", "The sign-in service answered: \nTry again", 502},
		{"error=x&code=good", "The sign-in failed", "The sign-in service answered: x\nTry again", 502},
		{"error=x&error_description=" + strings.Repeat("d", 5000), "The sign-in failed", "The sign-in service answered: x\nIt says: " + strings.Repeat("d", 300) + "\nTry again", 502},
	} {
		b, callback := w.atCallback(auth+"/x", "alice")
		target := auth + prefix + "/callback?state=" + url.QueryEscape(param(callback, "state")) + "&" + c.query
		page := b.step(target)
		b.shows(c.query[:min(40, len(c.query))], page, c.status, c.wantTitle, strings.ReplaceAll(c.wantMessage, ": \n", ":\n"))
		if strings.Contains(page.body, html) {
			t.Errorf("%s: not escaped", c.query)
		}
		if got := page.link(t); got != auth+prefix+"/sign_in?return=%2Fx" {
			t.Errorf("try again leads to %s", got)
		}
		b.shows("the same answer again", b.step(callback), 400, stray...)
	}
	// Without an attempt of this browser nothing of it is shown.
	page := w.browser().step(auth + prefix + "/callback?state=00000000.AAAAAAAAAAAAAAAAAAAAAA&error=access_denied&error_description=call+me")
	if page.StatusCode != 400 || strings.Contains(page.body, "call me") {
		t.Errorf("got %d %s", page.StatusCode, page.text())
	}
}

func TestNonceMismatch(t *testing.T) {
	f := newFake(t)
	for name, nonce := range map[string]any{"another": "AAAA", "none": nil, "empty": "", "null": nil} {
		f.claims = map[string]any{"nonce": nonce}
		f.refused(name, 502, "The sign-in failed", `cause="the ID token has another nonce: it was made for another sign-in"`)
	}
}

// TestIssuerMixUp has the answer of another provider come back (RFC 9207).
func TestIssuerMixUp(t *testing.T) {
	const title = "The sign-in failed"
	f := newFake(t)
	f.answer = url.Values{"iss": {"https://evil.example"}}
	f.refused("another issuer", 502, title, `cause="the answer is from the issuer \"https://evil.example\", not from `+f.issuer)
	f.answer = url.Values{"iss": {"https://evil.example"}, "error": {"access_denied"}}
	f.refused("another issuer's error", 502, title, "the answer is from the issuer")
	f.answer = url.Values{"iss": {f.issuer, f.issuer}}
	f.refused("twice", 502, title, "the answer is from the issuer")
	f.answer = url.Values{"iss": {""}}
	f.refused("empty", 502, title, "the answer is from the issuer")
	f.answer = url.Values{"iss": {f.issuer}}
	b := f.browser()
	if b.get(auth + "/"); b.session(auth) == nil {
		t.Errorf("the right issuer: %s", f.log.String())
	}

	f = newFake(t)
	f.document = map[string]any{"authorization_response_iss_parameter_supported": true}
	f.refused("none, where it is announced", 502, title, `cause="the answer lacks the parameter iss, which `+f.issuer+` announces to send"`)

	f = newFake(t)
	f.answer = url.Values{"code": {}}
	f.refused("no code", 502, title, `cause="the answer has no code, or several"`)
	f.answer = url.Values{"code": {"a", "b"}}
	f.refused("two codes", 502, title, `cause="the answer has no code, or several"`)

	f, other := newFake(t), newFake(t)
	b = f.browser()
	callback := b.until(auth+"/", auth+prefix+"/callback")
	f.change(func(s *Settings) { s.IDPs[0].Issuer = f.url(other.issuer) })
	b.shows("the provider was changed meanwhile", b.step(callback), 502, title)
	if !f.logged(`cause="the sign-in began with the provider ` + f.issuer + `, which is no longer configured"`) {
		t.Errorf("log: %s", f.log.String())
	}
}

func TestForgedIDToken(t *testing.T) {
	f := newFake(t)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	past, now := f.h.Now().Add(-time.Minute).Unix(), f.h.Now()
	for name, c := range map[string]struct {
		sign   func([]byte) string
		claims map[string]any
		cause  string
	}{
		"unsigned":                             {sign: unsigned, cause: "verify the ID token: oidc: malformed jwt: unexpected signature algorithm \\\"none\\\""},
		"HS256 with the client's secret":       {sign: func(p []byte) string { return signed(t, jose.HS256, []byte("s3cret-s3cret-s3cret-s3cret-s3cr"), p) }, cause: "unexpected signature algorithm \\\"HS256\\\""},
		"an algorithm that is not announced":   {sign: func(p []byte) string { return signed(t, jose.RS384, providerRSA(), p) }, cause: "unexpected signature algorithm \\\"RS384\\\""},
		"another key with the provider's kid":  {sign: func(p []byte) string { return signed(t, jose.RS256, stranger, p) }, cause: "failed to verify id token signature"},
		"a key of another kind":                {sign: func(p []byte) string { return signed(t, jose.ES256, curve, p) }, cause: "unexpected signature algorithm \\\"ES256\\\""},
		"no token":                             {sign: func([]byte) string { return "x.y" }, cause: "malformed jwt"},
		"of another issuer":                    {claims: map[string]any{"iss": "https://evil.example"}, cause: "id token issued by a different provider"},
		"for another client":                   {claims: map[string]any{"aud": "other"}, cause: "expected audience \\\"doorward\\\" got [\\\"other\\\"]"},
		"for several, by another client":       {claims: map[string]any{"aud": []string{"doorward", "other"}, "azp": "other"}, cause: `cause="the ID token was made for other"`},
		"for several, not said by whom":        {claims: map[string]any{"aud": []string{"doorward", "other"}}, cause: "the ID token was made for <nil>"},
		"for another client, though audience":  {claims: map[string]any{"azp": "other"}, cause: "the ID token was made for other"},
		"expired":                              {claims: map[string]any{"exp": past}, cause: "token is expired"},
		"without an end":                       {claims: map[string]any{"exp": nil}, cause: "token is expired"},
		"not valid yet":                        {claims: map[string]any{"nbf": now.Add(time.Hour).Unix()}, cause: "before the nbf"},
		"without a subject":                    {claims: map[string]any{"sub": nil}, cause: "a subject of 0 bytes, it must have 1 to 255"},
		"with an empty subject":                {claims: map[string]any{"sub": ""}, cause: "a subject of 0 bytes"},
		"with a subject that is a number":      {claims: map[string]any{"sub": 7}, cause: "failed to unmarshal claims"},
		"with a subject of 256 bytes":          {claims: map[string]any{"sub": strings.Repeat("x", 256)}, cause: "a subject of 256 bytes"},
		"bound to another access token":        {claims: map[string]any{"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, cause: "access token: access token hash does not match value in ID token"},
		"so large that no session can hold it": {claims: map[string]any{"x": strings.Repeat("x", 300_000)}, cause: "the limit is"},
	} {
		f.sign, f.claims = c.sign, c.claims
		status, title := 502, "The sign-in failed"
		if strings.HasPrefix(name, "so large") {
			status, title = 503, "Not available"
		}
		page := f.refused(name, status, title, c.cause)
		if strings.Contains(page.body, "oidc") || strings.Contains(f.log.String(), "eyJ") {
			t.Errorf("%s: the page tells the cause, or the log holds a token", name)
		}
	}
	f.sign, f.claims = nil, nil
	b := f.browser()
	if b.get(auth + "/"); b.session(auth) == nil {
		t.Errorf("a true token: %s", f.log.String())
	}
}
