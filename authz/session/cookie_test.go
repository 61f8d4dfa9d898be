package session

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"testing"
	"time"
)

func TestHashCookie(t *testing.T) {
	value, hash := newCookie()
	if got, ok := hashCookie(value); !ok || got != hash {
		t.Errorf("%q hashes to %x, %v, want %x", value, got, ok, hash)
	}
	for _, bad := range malformedCookies(value) {
		if _, ok := hashCookie(bad); ok {
			t.Errorf("%.60q counts as a cookie", bad)
		}
	}
	if other, _ := newCookie(); other == value {
		t.Error("two cookies are the same")
	}
}

func TestCookie(t *testing.T) {
	c := Cookie("value", time.Now().Add(time.Hour+time.Second/2))
	if got, want := c.String(), "__Host-doorward=value; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	const cleared = "__Host-doorward=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"
	if got := ClearCookie().String(); got != cleared {
		t.Errorf("got %s\nwant %s", got, cleared)
	}
	if got := Cookie("", time.Now().Add(-time.Hour)).String(); got != cleared {
		t.Errorf("a session that is over: got %s\nwant %s", got, cleared)
	}
	if err := (&http.Cookie{Name: c.Name, Value: c.Value}).Valid(); err != nil {
		t.Error(err)
	}
}

// FuzzHashCookie holds that each session has one spelling of its cookie.
func FuzzHashCookie(f *testing.F) {
	value, _ := newCookie()
	f.Add(value)
	for _, bad := range malformedCookies(value) {
		if len(bad) < 100 {
			f.Add(bad)
		}
	}
	f.Fuzz(func(t *testing.T, value string) {
		hash, ok := hashCookie(value)
		if !ok {
			return
		}
		raw, err := base64.RawURLEncoding.DecodeString(value)
		if err != nil || len(raw) != 32 || sha256.Sum256(raw) != hash || base64.RawURLEncoding.EncodeToString(raw) != value {
			t.Fatalf("%q counts as a cookie with hash %x: %x, %v", value, hash, raw, err)
		}
	})
}
