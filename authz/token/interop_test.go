package token

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestInterop has libraries of other languages verify tokens against the served JWKS: PyJWT, and jose for Node.
func TestInterop(t *testing.T) {
	tools, err := filepath.Abs("../../.tools") // where `make setup` installs them
	if err != nil {
		t.Fatal(err)
	}
	for name, verifier := range map[string]verifier{
		"PyJWT": {filepath.Join(tools, "venv/bin/python"), "testdata/interop/verify.py", filepath.Join(tools, "venv/ready")},
		"jose":  {"node", "testdata/interop/verify.mjs", filepath.Join(tools, "node/node_modules/jose")},
	} {
		t.Run(name, func(t *testing.T) {
			verifier.need(t)
			testInterop(t, verifier)
		})
	}
}

func testInterop(t *testing.T, v verifier) {
	c, _ := setUp(t)
	c.Now = nil // the verifiers have the real clock
	r := open(t, c)
	server := httptest.NewServer(r)
	defer server.Close()

	claims := alice()
	claims.Name, claims.NotAfter = `Alícia <"'&\> 🚪`, time.Now().Add(time.Hour)
	claims.Extra = map[string]any{"grafana": map[string]any{"role": "Admin", "orgs": []any{"main"}}}
	token := mint(t, r, claims)
	out, ok := v.run(t, server.URL, token, claims.Issuer, claims.Audience)
	var got, want map[string]any
	if err := json.Unmarshal([]byte(part(t, token, 1)), &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &got); !ok || err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("a good token: got %s, %v, want %v", out, err, want)
	}

	// Another ring on the same keys, an hour ago.
	past := c
	past.Now = func() time.Time { return time.Now().Add(-time.Hour) }
	stranger, _ := setUp(t)
	stranger.Now = nil
	head, body, signature := cut(token)
	otherHead, otherBody, _ := cut(mint(t, r, Claims{Issuer: claims.Issuer, Audience: claims.Audience, Subject: "root", NotAfter: claims.NotAfter}))
	none := encode([]byte(`{"alg":"none","typ":"JWT"}`))
	for what, bad := range map[string]struct{ token, issuer, audience string }{
		"another audience":          {token, claims.Issuer, "wiki.example.com"},
		"another issuer":            {token, "wiki.example.com", claims.Audience},
		"another body":              {head + "." + otherBody + "." + signature, claims.Issuer, claims.Audience},
		"a changed signature":       {head + "." + body + "." + flip(signature), claims.Issuer, claims.Audience},
		"no signature":              {otherHead + "." + body + ".", claims.Issuer, claims.Audience},
		"no algorithm":              {none + "." + body + ".", claims.Issuer, claims.Audience},
		"expired":                   {mint(t, open(t, past), claims), claims.Issuer, claims.Audience},
		"a key that is not in JWKS": {mint(t, open(t, stranger), claims), claims.Issuer, claims.Audience},
	} {
		if out, ok := v.run(t, server.URL, bad.token, bad.issuer, bad.audience); ok || !strings.HasPrefix(out, "refused: ") {
			t.Errorf("%s: got %s, want it refused", what, out)
		} else {
			t.Logf("%s: %s", what, out)
		}
	}
}

func cut(token string) (head, body, signature string) {
	parts := strings.Split(token, ".")
	return parts[0], parts[1], parts[2]
}

// flip changes the first character of a signature.
func flip(signature string) string {
	if signature[0] == 'A' {
		return "B" + signature[1:]
	}
	return "A" + signature[1:]
}

// verifier is a program that verifies a token.
type verifier struct {
	program string
	script  string
	needs   string // a path that is there when its library is
}

// need skips the test when the verifier is missing, unless it may not be.
func (v verifier) need(t *testing.T) {
	_, err := os.Stat(v.needs)
	if err == nil {
		_, err = exec.LookPath(v.program)
	}
	switch {
	case err == nil:
	case os.Getenv("DOORWARD_E2E") == "1":
		t.Fatalf("run make setup: %v", err)
	default:
		t.Skipf("NOT TESTED against another language's library: run make setup: %v", err)
	}
}

// run returns what the verifier printed, and whether it accepted the token.
func (v verifier) run(t *testing.T, jwks, token, issuer, audience string) (string, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, v.program, v.script, jwks, issuer, audience)
	cmd.Env = append(os.Environ(), "DOORWARD_NODE_MODULES="+filepath.Dir(v.needs))
	cmd.Stdin = strings.NewReader(token)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if stderr.Len() > 0 {
		t.Fatalf("%s: %v\n%s", v.script, err, &stderr)
	}
	return strings.TrimSpace(string(out)), err == nil
}
