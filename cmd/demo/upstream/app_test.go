package upstream

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func (i *issuer) grafana(change func(*Settings)) *Grafana {
	i.t.Helper()
	s := i.settings()
	s.RoleAttributePath = "role"
	if change != nil {
		change(&s)
	}
	g, err := NewGrafana(s, "/.pomerium/sign_out")
	if err != nil {
		i.t.Fatal(err)
	}
	return g
}

// ask sends a request with a token, or without one when it is "".
func ask(h http.Handler, method, target, token string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if token != "" {
		r.Header.Set(header, token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestProfile(t *testing.T) {
	i := newIssuer(t)
	g := i.grafana(nil)
	for _, path := range []string{"/", "/profile"} {
		w := ask(g, http.MethodGet, path, i.token(nil), nil)
		page := w.Body.String()
		if w.Code != http.StatusOK || strings.Count(page, "Synced via JWT") != 3 {
			t.Errorf("%s: %d with %d times Synced via JWT", path, w.Code, strings.Count(page, "Synced via JWT"))
		}
		for _, want := range []string{`<td id="name">Alice Adams</td>`, `<td id="email">alice@example.com</td>`, `<td id="login">alice@example.com</td>`,
			`<td id="role">Admin</td>`, `<td id="groups">grafana-admins</td>`} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %s", path, want)
			}
		}
	}
}

func TestTheLoginFormSaysWhy(t *testing.T) {
	i := newIssuer(t)
	g := i.grafana(nil)
	for token, why := range map[string]string{
		"":                                  "the request has no X-Pomerium-Jwt-Assertion header",
		i.token(map[string]any{"sub": nil}): "the X-Pomerium-Jwt-Assertion header holds no JWT with a sub claim",
		signed(t, "ES256", i.key, "<script>", i.claims(nil)): "failed to verify JWT: no keys found",
	} {
		w := ask(g, http.MethodGet, "/profile", token, nil)
		page := w.Body.String()
		if w.Code != http.StatusUnauthorized || !strings.Contains(page, "<form>") || !strings.Contains(page, `id="reason">`+why+"</p>") {
			t.Errorf("%s: %d\n%s", why, w.Code, page)
		}
		if strings.Contains(page, "Synced") || strings.Contains(page, "<script") {
			t.Errorf("%s: the page shows %s", why, page)
		}
	}
}

func TestAutoSignUp(t *testing.T) {
	i := newIssuer(t)
	g := i.grafana(func(s *Settings) { s.AutoSignUp = false })
	if w := ask(g, http.MethodGet, "/profile", i.token(nil), nil); w.Code != http.StatusUnauthorized ||
		!strings.Contains(w.Body.String(), "user not found, and auto_sign_up is off") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestAccountsGoBySubject: another e-mail address is the same account, another subject is not.
func TestAccountsGoBySubject(t *testing.T) {
	i := newIssuer(t)
	g := i.grafana(nil)
	id := func(change map[string]any) float64 {
		var user struct{ ID float64 }
		if err := json.Unmarshal(ask(g, http.MethodGet, "/api/user", i.token(change), nil).Body.Bytes(), &user); err != nil {
			t.Fatal(err)
		}
		return user.ID
	}
	first := id(nil)
	if got := id(map[string]any{"email": "a.adams@example.com"}); got != first {
		t.Errorf("account %v, want %v", got, first)
	}
	if got := id(map[string]any{"sub": "bob"}); got == first {
		t.Errorf("another subject got account %v", got)
	}
}

func TestHeadersAndPublicPages(t *testing.T) {
	i := newIssuer(t)
	g := i.grafana(nil)
	for _, path := range []string{"/headers", "/public/headers?x=1"} {
		var got Request
		if err := json.Unmarshal(ask(g, http.MethodPost, path, "forged", nil).Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.Method != http.MethodPost || got.Path != path || got.Header.Get(header) != "forged" {
			t.Errorf("%s shows %+v", path, got)
		}
	}
	if w := ask(g, http.MethodGet, "/public/img/x", "", nil); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Everybody may see /public/img/x") {
		t.Errorf("public: %d %s", w.Code, w.Body)
	}
	if w := ask(g, http.MethodGet, "/logout", "", nil); w.Code != http.StatusFound || w.Header().Get("Location") != "/.pomerium/sign_out" {
		t.Errorf("logout: %d to %s", w.Code, w.Header().Get("Location"))
	}
	if w := ask(g, http.MethodGet, "/api/user", "", nil); w.Code != http.StatusUnauthorized || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("api: %d %s", w.Code, w.Header())
	}
}

func TestWiki(t *testing.T) {
	i := newIssuer(t)
	s := i.settings()
	s.ExpectClaims = map[string]any{"aud": "wiki.localhost"}
	k, err := NewWiki(s)
	if err != nil {
		t.Fatal(err)
	}
	ours := i.token(map[string]any{"aud": "wiki.localhost"})
	for token, want := range map[string]int{"": 401, i.token(nil): 401, ours: 200} {
		if w := ask(k, http.MethodGet, "/", token, nil); w.Code != want {
			t.Errorf("reading: %d, want %d\n%s", w.Code, want, w.Body)
		}
	}
	for text, want := range map[string]int{"": 400, strings.Repeat("x", maxPage+1): 400, "a <b>": 303} {
		if w := ask(k, http.MethodPost, "/", ours, url.Values{"text": {text}}); w.Code != want {
			t.Errorf("writing %d bytes: %d, want %d", len(text), w.Code, want)
		}
	}
	if w := ask(k, http.MethodPost, "/", "", url.Values{"text": {"mine"}}); w.Code != 401 {
		t.Errorf("writing as nobody: %d", w.Code)
	}
	page := ask(k, http.MethodGet, "/", ours, nil).Body.String()
	if !strings.Contains(page, `<p id="text">a &lt;b&gt;</p>`) || !strings.Contains(page, "Last changed by Alice Adams.") {
		t.Errorf("the page is\n%s", page)
	}
}

func TestRecorder(t *testing.T) {
	var rec Recorder
	h := rec.Wrap(http.NotFoundHandler())
	for range maxRecorded + 5 {
		ask(h, http.MethodGet, "/x?y", "t", nil)
	}
	if n, kept := rec.Total(), rec.Requests(); n != maxRecorded+5 || len(kept) != maxRecorded || kept[0].Path != "/x?y" || kept[0].Header.Get(header) != "t" {
		t.Errorf("%d counted, %d kept, the first is %+v", n, len(kept), kept[0])
	}
	if w := ask(&rec, http.MethodDelete, "/", "", nil); w.Code != http.StatusNoContent {
		t.Errorf("reset: %d", w.Code)
	}
	if got := ask(&rec, http.MethodGet, "/", "", nil).Body.String(); got != `{"total":0,"requests":[]}`+"\n" {
		t.Errorf("after the reset: %s", got)
	}
	if w := ask(&rec, http.MethodPost, "/", "", nil); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}
