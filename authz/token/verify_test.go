package token

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

func TestVerify(t *testing.T) {
	c, clock := setUp(t)
	r := open(t, c)
	other, _ := setUp(t)
	good := mint(t, r, alice())
	parts := strings.Split(good, ".")
	with := func(i int, text string) string {
		changed := append([]string(nil), parts...)
		changed[i] = text
		return strings.Join(changed, ".")
	}
	encoded := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	claims, flipped := part(t, good, 1), "A"
	if parts[2][10] == 'A' {
		flipped = "B"
	}
	for _, row := range []struct{ name, token, host, want string }{
		{"as it was minted", good, "grafana.example.com", ""},
		{"of another host", good, "wiki.example.com", "the token is for another host"},
		{"of no host", good, "", "the token is for another host"},
		{"of another ring", mint(t, open(t, other), alice()), "grafana.example.com", "no token of ours: no key that is published has signed it"},
		{"with another name in it", with(1, encoded(strings.Replace(claims, "b4d6c2d5", "root", 1))), "grafana.example.com", "no token of ours: its signature does not verify"},
		{"with another signature", with(2, parts[2][:10]+flipped+parts[2][11:]), "grafana.example.com", "no token of ours: its signature does not verify"},
		{"without a signature", with(2, ""), "grafana.example.com", "no token of ours: its signature does not verify"},
		{"with more of a signature", with(2, parts[2]+"AAAA"), "grafana.example.com", "no token of ours: its signature does not verify"},
		{"with the algorithm none", with(0, encoded(`{"alg":"none"}`)), "grafana.example.com", "no token of ours: no key that is published has signed it"},
		{"with another header for the key", with(0, encoded(`{"kid":"`+r.KeyID()+`","alg":"ES256","typ":"JWT"}`)), "grafana.example.com", "no token of ours: no key that is published has signed it"},
		{"two parts", parts[0] + "." + parts[2], "grafana.example.com", "no token of ours: it has not three parts"},
		{"four parts", good + ".x", "grafana.example.com", "no token of ours: its signature does not verify"},
		{"nothing", "", "grafana.example.com", "no token of ours: it has not three parts"},
	} {
		got, err := r.Verify(row.token, row.host)
		switch {
		case row.want == "" && (err != nil || got != Identity{Subject: "b4d6c2d5", Email: "alice@example.com"}):
			t.Errorf("%s: %+v, %v", row.name, got, err)
		case row.want != "" && (err == nil || err.Error() != row.want || got != Identity{}):
			t.Errorf("%s: %+v, %v, want %s", row.name, got, err, row.want)
		}
	}
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(good, "grafana.example.com"); err != nil {
		t.Errorf("after a rotation: %v", err)
	}
	clock.advance(5 * time.Minute)
	if _, err := r.Verify(good, "grafana.example.com"); err == nil || err.Error() != "the token has expired" {
		t.Errorf("later: %v", err)
	}
	if err := r.Retire(t.Context(), r.KeyID(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(good, "grafana.example.com"); err == nil || !strings.Contains(err.Error(), "no key that is published") {
		t.Errorf("of a withdrawn key: %v", err)
	}
}
