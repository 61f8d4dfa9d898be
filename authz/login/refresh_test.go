package login

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"doorward/authz/session"
)

// refreshing is a provider that gives refresh tokens, each good for one refresh.
type refreshing struct {
	*fake
	mu     sync.Mutex
	valid  string
	used   int
	refuse func(w http.ResponseWriter) // answers a refresh instead
}

func newRefreshing(t *testing.T) *refreshing {
	f := &refreshing{fake: newFake(t), valid: "refresh-0"}
	f.change(func(s *Settings) { s.Refresh = 10 * time.Minute })
	f.token = map[string]any{"refresh_token": f.valid}
	f.claims = map[string]any{"sid": "s1", "auth_time": f.h.Now().Unix()}
	inner := f.idp
	f.idp = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/token" || r.FormValue("grant_type") != "refresh_token" {
			inner.ServeHTTP(w, r)
			return
		}
		f.answer(w, r)
	})
	return f
}

func (f *refreshing) answer(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		f.refuse(w)
		return
	}
	if r.FormValue("refresh_token") != f.valid {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant", "error_description": "used before"})
		return
	}
	f.used++
	f.valid = "refresh-" + string(rune('0'+f.used))
	now := f.h.Now()
	answer := map[string]any{"access_token": "access", "token_type": "Bearer", "expires_in": 300, "refresh_token": f.valid}
	if f.userinfo == nil {
		answer["id_token"] = f.idToken(change(map[string]any{
			"iss": f.issuer, "aud": "doorward", "sub": "alice", "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(),
			"email": "alice@example.com", "name": "Alice", "groups": []string{"engineering"},
		}, f.claims))
	}
	writeJSON(w, http.StatusOK, answer)
}

// due refreshes what is due now, as Run does, and returns how much it was.
func (f *refreshing) due(t *testing.T) int {
	t.Helper()
	owned, err := f.h.Sessions.Due(t.Context(), refreshLease, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range owned {
		f.h.refreshOwned(t.Context(), r)
	}
	return len(owned)
}

func TestRefreshBringsNewGroups(t *testing.T) {
	f := newRefreshing(t)
	b := f.browser()
	b.get(grafana + "/")
	before := b.session(grafana)
	if n := f.due(t); n != 0 {
		t.Errorf("%d due at once", n)
	}
	f.offset.Add(int64(10 * time.Minute))
	if owned, err := f.h.Sessions.Due(t.Context(), refreshLease, 0); err != nil || len(owned) != 0 { // as many as may be under way are
		t.Errorf("%d due when none is wanted, %v", len(owned), err)
	}
	f.claims["groups"] = []string{"operations"}
	if n := f.due(t); n != 1 {
		t.Fatalf("%d due, want 1:\n%s", n, f.log.String())
	}
	after := b.session(grafana)
	if after == nil || !slices.Equal(after.User.Groups, []string{"operations"}) || after.Version == before.Version || after.ID != before.ID || after.ACR != before.ACR || !after.AuthTime.Equal(before.AuthTime) {
		t.Errorf("got %+v of %+v", after, before)
	}
	for range 3 { // with nothing new the version stays, and with it what was decided
		f.offset.Add(int64(10 * time.Minute))
		if n := f.due(t); n != 1 || b.session(grafana).Version != after.Version {
			t.Errorf("%d due, version %d, want %d", n, b.session(grafana).Version, after.Version)
		}
	}
	if full, err := f.h.Sessions.Load(t.Context(), after.ID); err != nil || full.Tokens.Refresh != "refresh-4" {
		t.Errorf("the stored refresh token is not the last one: %v", err)
	}
}

// A provider that sends no new ID token is asked at its userinfo endpoint; what it does not say there stays as it was.
func TestRefreshByUserinfo(t *testing.T) {
	f := newRefreshing(t)
	f.claims["department"] = "tools"
	b := f.browser()
	b.get(grafana + "/")
	f.userinfo = map[string]any{"sub": "alice", "groups": []string{"operations"}, "name": "Alice A."}
	f.offset.Add(int64(10 * time.Minute))
	f.due(t)
	s := b.session(grafana)
	if s == nil || !slices.Equal(s.User.Groups, []string{"operations"}) || s.User.Name != "Alice A." || s.User.Email != "alice@example.com" || s.User.Claims["department"] != "tools" {
		t.Errorf("got %+v", s)
	}
}

// Nobody has verified an e-mail that is new, and that nothing says so of.
func TestRefreshedEmailIsNotVerifiedByTheOneBefore(t *testing.T) {
	for _, row := range []struct {
		userinfo map[string]any
		email    string
		verified bool
	}{
		{map[string]any{"email": "alice@example.com"}, "alice@example.com", true},
		{map[string]any{"email": "root@example.com"}, "root@example.com", false},
		{map[string]any{"email": "root@example.com", "email_verified": true}, "root@example.com", true},
	} {
		f := newRefreshing(t)
		f.claims["email_verified"] = true
		b := f.browser()
		b.get(grafana + "/")
		f.userinfo = change(map[string]any{"sub": "alice"}, row.userinfo)
		f.offset.Add(int64(10 * time.Minute))
		f.due(t)
		if s := b.session(grafana); s == nil || s.User.Email != row.email || s.User.EmailVerified != row.verified {
			t.Errorf("%v: got %+v", row.userinfo, s)
		}
	}
}

// A refresh is no sign-in: a route that asks for a recent one asks for it again.
func TestRefreshDoesNotMakeASignInRecent(t *testing.T) {
	f := newRefreshing(t)
	delete(f.claims, "sid")
	b := f.browser()
	b.get(grafana + "/")
	before := b.session(grafana)
	f.offset.Add(int64(10 * time.Minute))
	f.claims["auth_time"], f.claims["groups"] = f.h.Now().Unix(), []string{"operations"}
	f.due(t)
	if s := b.session(grafana); s == nil || s.Version == before.Version || !s.AuthTime.Equal(before.AuthTime) {
		t.Errorf("got %+v, signed in at %s", s, before.AuthTime)
	}
}

func TestRefusedRefreshEndsTheSession(t *testing.T) {
	f := newRefreshing(t)
	b := f.browser()
	b.get(grafana + "/")
	f.offset.Add(int64(10 * time.Minute))
	f.valid = "none"
	f.due(t)
	if b.session(grafana) != nil || b.session(auth) != nil {
		t.Error("the session goes on")
	}
	if !f.logged("level=INFO", `msg="the provider no longer knows the session: it is ended"`, "used before") {
		t.Errorf("the log does not say so:\n%s", f.log.String())
	}
	f.offset.Add(int64(time.Hour))
	if n := f.due(t); n != 0 {
		t.Errorf("%d due of a session that is gone", n)
	}
}

// While the provider does not answer, or answers something that says nothing of the session, it goes on, and is tried again soon.
func TestUnansweredRefreshKeepsTheSession(t *testing.T) {
	for name, refuse := range map[string]func(w http.ResponseWriter){
		"an error of the server": func(w http.ResponseWriter) { http.Error(w, "down", http.StatusServiceUnavailable) },
		"the client is not known there": func(w http.ResponseWriter) {
			writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		},
		"no JSON": func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) },
	} {
		f := newRefreshing(t)
		b := f.browser()
		b.get(grafana + "/")
		f.offset.Add(int64(10 * time.Minute))
		f.refuse = refuse
		if n := f.due(t); n != 1 || b.session(grafana) == nil {
			t.Errorf("%s: %d due, session %v", name, n, b.session(grafana))
		}
		f.refuse = nil
		f.offset.Add(int64(refreshBackoff - time.Second))
		if n := f.due(t); n != 0 {
			t.Errorf("%s: tried again too soon", name)
		}
		f.offset.Add(int64(time.Second))
		f.claims["groups"] = []string{"operations"}
		if n := f.due(t); n != 1 || b.session(grafana) == nil || b.session(grafana).User.Groups[0] != "operations" {
			t.Errorf("%s: %d due after the provider answers again", name, n)
		}
	}
}

// What a refreshed ID token must be; otherwise the session stays as it is, and the next refresh token is kept.
func TestRefreshedTokenIsHeldAgainstTheSession(t *testing.T) {
	for name, claims := range map[string]map[string]any{
		"another subject":           {"sub": "mallory"},
		"another audience":          {"aud": "other"},
		"another issuer":            {"iss": "https://elsewhere.example"},
		"another provider session":  {"sid": "s2"},
		"expired":                   {"exp": 1},
		"an authorized party":       {"azp": "other"},
		"the access token of other": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
	} {
		f := newRefreshing(t)
		b := f.browser()
		b.get(grafana + "/")
		before := b.session(grafana)
		f.offset.Add(int64(10 * time.Minute))
		good := f.claims
		f.claims = change(change(good, claims), map[string]any{"groups": []string{"administrators"}})
		f.due(t)
		if s := b.session(grafana); s == nil || s.Version != before.Version {
			t.Errorf("%s: the session is %+v", name, s)
		}
		f.claims = good
		f.offset.Add(int64(refreshBackoff))
		if f.due(t); !f.logged("level=WARN", "could not be refreshed") || b.session(grafana) == nil {
			t.Errorf("%s: the session was lost, or nothing said:\n%s", name, f.log.String())
		}
		if full, err := f.h.Sessions.Load(t.Context(), before.ID); err != nil || full.Tokens.Refresh != "refresh-2" {
			t.Errorf("%s: the refresh after it did not work", name)
		}
	}
}

func TestNoRefreshWithoutAToken(t *testing.T) {
	f := newFake(t)
	f.change(func(s *Settings) { s.Refresh = 10 * time.Minute })
	f.browser().get(grafana + "/")
	f.offset.Add(int64(time.Hour))
	if owned, err := f.h.Sessions.Due(t.Context(), time.Minute, 10); err != nil || len(owned) != 0 {
		t.Errorf("%d due, %v", len(owned), err)
	}
}

// Two owners at once, as two replicas are, use a refresh token once.
func TestOneOwnerRefreshes(t *testing.T) {
	f := newRefreshing(t)
	b := f.browser()
	for range 5 {
		b.get(grafana + "/")
	}
	f.offset.Add(int64(10 * time.Minute))
	var group sync.WaitGroup
	total := make(chan int, 4)
	for range 4 {
		group.Go(func() {
			owned, err := f.h.Sessions.Due(t.Context(), refreshLease, 100)
			if err != nil {
				t.Error(err)
			}
			total <- len(owned)
			for _, r := range owned {
				f.h.refreshOwned(t.Context(), r)
			}
		})
	}
	group.Wait()
	close(total)
	sum := 0
	for n := range total {
		sum += n
	}
	if s := b.session(grafana); sum != 1 || s == nil || f.used != 1 {
		t.Errorf("%d owners, %d refreshes, session %v", sum, f.used, s)
	}
}

// A sign-out that comes while the provider is asked wins.
func TestRefreshRacesASignOut(t *testing.T) {
	f := newRefreshing(t)
	b := f.browser()
	b.get(grafana + "/")
	s := b.session(grafana)
	f.offset.Add(int64(10 * time.Minute))
	f.refuse = func(w http.ResponseWriter) {
		if err := f.h.Sessions.Revoke(t.Context(), s.ID); err != nil {
			t.Error(err)
		}
		now := f.h.Now()
		writeJSON(w, http.StatusOK, map[string]any{"access_token": "access", "token_type": "Bearer", "refresh_token": "next", "id_token": f.idToken(map[string]any{
			"iss": f.issuer, "aud": "doorward", "sub": "alice", "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(), "email": "a@b.example", "name": "A", "groups": []string{},
		})})
	}
	f.due(t)
	if _, err := f.h.Sessions.Load(t.Context(), s.ID); err == nil || b.session(grafana) != nil {
		t.Error("a refresh brought a session back")
	}
	var due []session.Refresh
	f.offset.Add(int64(time.Hour))
	if due, _ = f.h.Sessions.Due(t.Context(), time.Minute, 10); len(due) != 0 {
		t.Errorf("%d due of a session that is gone", len(due))
	}
}
