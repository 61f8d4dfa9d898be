package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"time"
)

// cookieLength is that of a cookie's value: 32 bytes in base64url without padding.
const cookieLength = 43

// newCookie returns a value and its hash.
func newCookie() (string, [32]byte) {
	var raw [32]byte
	rand.Read(raw[:])
	return base64.RawURLEncoding.EncodeToString(raw[:]), sha256.Sum256(raw[:])
}

// hashCookie returns the hash of a value that newCookie could have made. No other spelling of the same bytes is one.
func hashCookie(value string) ([32]byte, bool) {
	if len(value) != cookieLength {
		return [32]byte{}, false
	}
	var raw [33]byte
	n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(value))
	if err != nil || n != 32 {
		return [32]byte{}, false
	}
	return sha256.Sum256(raw[:32]), true
}

// ForService is the host for which the credential of a program is issued that connects to the TCP service of a host. No host is called so: the
// credential is no cookie of the host's pages, and a cookie of theirs opens no connection.
func ForService(host string) string { return "service " + host }

// Cookie is how a value that Issue returned is set. The browser counts Max-Age from now, by the real clock.
func Cookie(value string, expires time.Time) *http.Cookie {
	c := &http.Cookie{
		Name:     CookieName,
		Value:    value,
		Path:     "/",
		Secure:   true,
		HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
		MaxAge:   int(time.Until(expires) / time.Second),
	}
	if c.MaxAge <= 0 {
		c.MaxAge = -1
	}
	return c
}

// ClearCookie takes the cookie from the browser.
func ClearCookie() *http.Cookie { return Cookie("", time.Time{}) }
