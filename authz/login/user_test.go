package login

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"doorward/authz/session"
)

// end posts the form of the user page.
func (b *browser) end(origin, hash string, header map[string]string) answer {
	b.Helper()
	r := b.request("POST", origin+prefix+"/")
	r.Body = httptest.NewRequest("POST", "/", strings.NewReader(url.Values{"session": {hash}}.Encode())).Body
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for name, value := range header {
		r.Header.Set(name, value)
	}
	b.CheckRedirect = nil
	return b.do(r)
}

func TestOtherSessionsOfAPerson(t *testing.T) {
	w := newWorld(t)
	desk, phone, bob := w.browser(), w.browser(), w.browser()
	desk.signIn(grafana+"/", "alice")
	phone.signIn(wiki+"/", "alice")
	bob.signIn(wiki+"/", "bob")
	other := session.HashID(phone.session(wiki).ID)
	page := desk.get(grafana + prefix + "/")
	if !strings.Contains(page.body, other) || strings.Contains(page.body, session.HashID(bob.session(wiki).ID)) || !strings.Contains(page.text(), "Your other sessions") {
		t.Errorf("the page says:\n%s", page.text())
	}
	here := map[string]string{"Sec-Fetch-Site": "same-origin"}
	if got := bob.end(wiki, other, here); got.StatusCode != 200 || phone.session(wiki) == nil {
		t.Errorf("somebody else ended the session: %d", got.StatusCode)
	}
	for name, header := range map[string]map[string]string{
		"from another site": {"Sec-Fetch-Site": "cross-site"}, "from a sibling": {"Sec-Fetch-Site": "same-site"}, "from nowhere": {}, "from another origin": {"Origin": wiki},
	} {
		if got := desk.end(grafana, other, header); got.StatusCode != 403 || phone.session(wiki) == nil {
			t.Errorf("%s: got %d", name, got.StatusCode)
		}
	}
	if got := w.browser().end(grafana, other, here); phone.session(wiki) == nil {
		t.Errorf("a stranger ended the session: %d", got.StatusCode)
	}
	got := desk.end(grafana, other, here)
	if phone.session(wiki) != nil || phone.session(auth) != nil || desk.session(grafana) == nil {
		t.Error("the session did not end, or the wrong one did")
	}
	if got.Request.URL.String() != grafana+prefix+"/" || strings.Contains(got.body, other) {
		t.Errorf("led to %s:\n%s", got.Request.URL, got.text())
	}
}

func TestAgents(t *testing.T) {
	for userAgent, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36":                                   "Chrome on Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0":           "Edge on Windows",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:150.0) Gecko/20100101 Firefox/150.0":                                                    "Firefox on macOS",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1": "Safari on iPhone",
		"Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Mobile Safari/537.36":                   "Chrome on Android",
		"curl/8.0": "",
		"":         "",
	} {
		if got := agent(userAgent); got != want {
			t.Errorf("%s\nis %q, want %q", userAgent, got, want)
		}
	}
}
