package login

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
)

// TestIdentity holds what becomes of what a provider says.
func TestIdentity(t *testing.T) {
	plain := session.User{ID: "alice", Email: "alice@example.com", Name: "Alice", Groups: []string{"engineering"}}
	with := func(f func(u *session.User)) session.User {
		u := plain
		f(&u)
		return u
	}
	for name, c := range map[string]struct {
		claims, userinfo map[string]any
		idp              func(*config.IDP)
		want             session.User
	}{
		"the usual":                          {want: plain},
		"verified":                           {claims: map[string]any{"email_verified": true}, want: with(func(u *session.User) { u.EmailVerified = true })},
		"verified, as a string":              {claims: map[string]any{"email_verified": "true"}, want: with(func(u *session.User) { u.EmailVerified = true })},
		"not verified":                       {claims: map[string]any{"email_verified": false}, want: plain},
		"verified is a number":               {claims: map[string]any{"email_verified": 1}, want: plain},
		"verified is another string":         {claims: map[string]any{"email_verified": "TRUE"}, want: plain},
		"trusted without the claim":          {idp: func(i *config.IDP) { i.TrustEmail = true }, want: with(func(u *session.User) { u.EmailVerified = true })},
		"trusted, but said not to be":        {claims: map[string]any{"email_verified": false}, idp: func(i *config.IDP) { i.TrustEmail = true }, want: plain},
		"trusted, but no string":             {claims: map[string]any{"email": []string{"a@b"}}, idp: func(i *config.IDP) { i.TrustEmail = true }, want: with(func(u *session.User) { u.Email = "" })},
		"e-mail is an object":                {claims: map[string]any{"email": map[string]any{"a": "b"}, "email_verified": true}, want: with(func(u *session.User) { u.Email = "" })},
		"groups are a string":                {claims: map[string]any{"groups": "engineering"}, want: plain},
		"groups of several kinds":            {claims: map[string]any{"groups": []any{"engineering", 1, nil, "", []string{"x"}, map[string]any{}}}, want: plain},
		"groups are null":                    {claims: map[string]any{"groups": json.RawMessage("null")}, userinfo: map[string]any{"sub": "alice"}, want: with(func(u *session.User) { u.Groups = []string{} })},
		"groups are an object":               {claims: map[string]any{"groups": map[string]any{"a": "b"}}, want: with(func(u *session.User) { u.Groups = []string{} })},
		"groups by a path":                   {claims: map[string]any{"realm_access": map[string]any{"roles": []string{"r"}}}, idp: func(i *config.IDP) { i.GroupsClaim = "realm_access.roles" }, want: with(func(u *session.User) { u.Groups = []string{"r"} })},
		"groups by a name with dots":         {claims: map[string]any{"https://example.com/groups": []string{"r"}}, idp: func(i *config.IDP) { i.GroupsClaim = "https://example.com/groups" }, want: with(func(u *session.User) { u.Groups = []string{"r"} })},
		"groups by another name":             {claims: map[string]any{"roles": []string{"r"}}, idp: func(i *config.IDP) { i.GroupsClaim = "roles" }, want: with(func(u *session.User) { u.Groups = []string{"r"} })},
		"no name but a preferred one":        {claims: map[string]any{"name": "", "preferred_username": "al"}, want: with(func(u *session.User) { u.Name = "al" })},
		"name is a number":                   {claims: map[string]any{"name": 7}, want: with(func(u *session.User) { u.Name = "" })},
		"groups from userinfo":               {claims: map[string]any{"groups": nil}, userinfo: map[string]any{"sub": "alice", "groups": []string{"a", "b"}}, want: with(func(u *session.User) { u.Groups = []string{"a", "b"} })},
		"userinfo replaces nothing":          {claims: map[string]any{"groups": nil}, userinfo: map[string]any{"sub": "alice", "email": "mallory@example.com", "name": "M", "groups": []string{"a"}}, want: with(func(u *session.User) { u.Groups = []string{"a"} })},
		"userinfo verifies the same e-mail":  {claims: map[string]any{"groups": nil}, userinfo: map[string]any{"sub": "alice", "email": "alice@example.com", "email_verified": true, "groups": "engineering"}, want: with(func(u *session.User) { u.EmailVerified = true })},
		"userinfo verifies another e-mail":   {claims: map[string]any{"groups": nil}, userinfo: map[string]any{"sub": "alice", "email": "a@example.com", "email_verified": true, "groups": "engineering"}, want: plain},
		"e-mail from userinfo":               {claims: map[string]any{"email": nil}, userinfo: map[string]any{"sub": "alice", "email": "a@example.com", "email_verified": true}, want: with(func(u *session.User) { u.Email, u.EmailVerified = "a@example.com", true })},
		"e-mail from userinfo, not verified": {claims: map[string]any{"email": nil, "email_verified": true}, userinfo: map[string]any{"sub": "alice", "email": "a@example.com"}, want: with(func(u *session.User) { u.Email = "a@example.com" })},
		"complete, so userinfo is not asked": {userinfo: map[string]any{"sub": "mallory"}, want: plain},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.claims, f.userinfo = c.claims, c.userinfo
			if c.idp != nil {
				f.change(func(s *Settings) { c.idp(&s.IDPs[0]) })
			}
			b := f.browser()
			page := b.get(auth + "/")
			s := b.session(auth)
			if s == nil {
				t.Fatalf("not signed in: %s\n%s", page.text(), f.log.String())
			}
			got := s.User
			got.Claims = nil
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got\n%#v\nwant\n%#v", got, c.want)
			}
		})
	}
}

func TestSessionClaims(t *testing.T) {
	f := newFake(t)
	f.claims = map[string]any{
		"auth_time": 1700000000, "amr": []string{"pwd", "otp"}, "acr": "2", "sid": "sid-1", "azp": "doorward", "jti": "j", "employee": int64(9007199254740993),
		"aud": []string{"doorward", "other"}, "nbf": f.h.Now().Unix(), "typ": "ID", "c_hash": "x", "nested": map[string]any{"a": []any{"b", nil, true}},
	}
	b := f.browser()
	b.get(auth + "/")
	s := b.session(auth)
	if s == nil {
		t.Fatal(f.log.String())
	}
	want := map[string]any{
		"sub": "alice", "email": "alice@example.com", "name": "Alice", "groups": []any{"engineering"},
		"employee": json.Number("9007199254740993"), "nested": map[string]any{"a": []any{"b", nil, true}},
	}
	if !reflect.DeepEqual(s.User.Claims, want) {
		t.Errorf("claims\n%v\nwant\n%v", s.User.Claims, want)
	}
	if !s.AuthTime.Equal(time.Unix(1700000000, 0)) || !reflect.DeepEqual(s.AMR, []string{"pwd", "otp"}) || s.ACR != "2" || s.SID != "sid-1" {
		t.Errorf("auth time %v, amr %q, acr %q, sid %q", s.AuthTime, s.AMR, s.ACR, s.SID)
	}
	for _, odd := range []any{"x", -1, 1e300, []string{"1"}, true} {
		f.claims["auth_time"] = odd
		b := f.browser()
		b.get(auth + "/")
		if s := b.session(auth); s == nil || !s.AuthTime.IsZero() {
			t.Errorf("auth_time %v: %v", odd, s)
		}
	}
}

// TestGroupsElsewhere is a provider that has too many groups for a token (Microsoft Entra's overage).
func TestGroupsElsewhere(t *testing.T) {
	f := newFake(t)
	f.claims = map[string]any{"groups": nil, "_claim_names": map[string]any{"groups": "src1"},
		"_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "https://graph.example/x"}}}
	f.userinfo = map[string]any{"sub": "alice"}
	b := f.browser()
	b.shows("groups that are not known", b.get(auth+"/"), 403, "Your groups are not known")
	if b.session(auth) != nil || !f.logged("level=INFO", "the provider sent a link in place of the groups", "groups_overage: ignore") {
		t.Errorf("log: %s", f.log.String())
	}
	f.change(func(s *Settings) { s.IDPs[0].GroupsOverage = "ignore" })
	b.get(auth + "/")
	if s := b.session(auth); s == nil || len(s.User.Groups) != 0 {
		t.Fatalf("%v\n%s", s, f.log.String())
	}
	if !f.logged("level=WARN", "the provider sent a link in place of the groups: they are taken as none", "subject=alice") {
		t.Errorf("log: %s", f.log.String())
	}
}

func TestRegistration(t *testing.T) {
	f := newFake(t)
	b := f.browser()
	u, _ := url.Parse(b.step(auth + prefix + "/sign_in").next(t))
	q := u.Query()
	for name, want := range map[string]string{
		"client_id": "doorward", "response_type": "code", "redirect_uri": auth + prefix + "/callback", "scope": "openid profile email",
		"code_challenge_method": "S256",
	} {
		if got := q.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for name, length := range map[string]int{"state": 8 + 1 + 22, "nonce": 22, "code_challenge": 43} {
		if got := q.Get(name); len(got) != length {
			t.Errorf("%s is %q, want %d characters", name, got, length)
		}
	}
	f.change(func(s *Settings) { s.IDPs[0].Scopes = []string{"email", "groups"} })
	u, _ = url.Parse(b.step(auth + prefix + "/sign_in").next(t))
	if got, want := u.Query().Get("scope"), "openid email groups"; got != want {
		t.Errorf("scope is %q, want %q", got, want)
	}
}

func TestClientAuthentication(t *testing.T) {
	for name, c := range map[string]struct {
		methods []string
		secret  config.Secret
		want    string
	}{
		"nothing announced": {nil, "s3cret %+", "basic doorward s3cret+%25%2B, form  "},
		"basic":             {[]string{"client_secret_post", "client_secret_basic"}, "s3cret", "basic doorward s3cret, form  "},
		"post only":         {[]string{"client_secret_post", "private_key_jwt"}, "s3cret", "basic  , form doorward s3cret"},
		"a public client":   {[]string{"client_secret_basic", "none"}, "", "basic  , form doorward "},
	} {
		f := newFake(t)
		f.change(func(s *Settings) { s.IDPs[0].ClientSecret = c.secret })
		if c.methods != nil {
			f.document = map[string]any{"token_endpoint_auth_methods_supported": c.methods}
		}
		f.seen = func(_ string, r *http.Request) string {
			id, secret, _ := r.BasicAuth()
			if got := "basic " + id + " " + secret + ", form " + r.PostFormValue("client_id") + " " + r.PostFormValue("client_secret"); got != c.want {
				t.Errorf("%s: got %s, want %s", name, got, c.want)
			}
			return ""
		}
		b := f.browser()
		if b.get(auth + "/"); b.session(auth) == nil {
			t.Errorf("%s: not signed in\n%s", name, f.log.String())
		}
	}
}

func TestTokenEndpoint(t *testing.T) {
	const title = "The sign-in failed"
	f := newFake(t)
	f.seen = func(string, *http.Request) string { return "wrong secret" }
	f.refused("refused", 502, title, `cause="exchange the code: oauth2: \"invalid_client\" \"wrong secret\""`)
	f.seen = nil
	f.refuse = func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "secret=hunter2")
	}
	f.refused("broken", 502, title, `cause="exchange the code: the token endpoint answered 500 Internal Server Error"`)
	if strings.Contains(f.log.String(), "hunter2") {
		t.Error("the body is in the log")
	}
	other := false
	elsewhere := newFake(t)
	elsewhere.refuse = func(http.ResponseWriter) { other = true }
	f.refuse = func(w http.ResponseWriter) {
		w.Header().Set("Location", elsewhere.issuer+"/token")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
	f.refused("redirects the code and the secret", 502, title, `cause="exchange the code: the token endpoint answered 307 Temporary Redirect"`)
	if other {
		t.Error("the redirect was followed")
	}
	f.refuse = func(w http.ResponseWriter) {
		writeJSON(w, http.StatusOK, map[string]string{"access_token": strings.Repeat("x", 2<<20)})
	}
	f.refused("too long", 502, title, `cause="exchange the code: oauth2: cannot parse json: unexpected end of JSON input"`)
	f.refuse = nil
	f.token = map[string]any{"id_token": nil}
	f.refused("no ID token", 502, title, `cause="the token endpoint sent no ID token: is the scope openid allowed for this client?"`)
	f.token = map[string]any{"id_token": 7}
	f.refused("an ID token that is a number", 502, title, "sent no ID token")
}

// The first provider's subjects are ids as they are, so none may read as the id of somebody else's user.
func TestSubjectsThatReadAsOtherUsersAreRefused(t *testing.T) {
	for subject, refused := range map[string]bool{"service:deploy": true, "ci:1": true, "partners:bob": true, "default:bob": false, "auth0|5": false, "partners": false} {
		f := newFake(t)
		f.change(func(s *Settings) {
			s.Programs = []string{"service", "ci"}
			s.IDPs = append(s.IDPs, config.IDP{Name: "partners", Issuer: f.url("https://partners.example.com"), ClientID: "doorward"})
		})
		f.claims = map[string]any{"sub": subject}
		b := f.browser()
		b.get(auth + "/.pomerium/sign_in?return=/&provider=default&continue=1")
		if s := b.session(auth); refused != (s == nil) || refused != f.logged("reads as the id of a user of") {
			t.Errorf("%s: %+v\n%s", subject, s, f.log.String())
		}
	}
}

func TestUserinfo(t *testing.T) {
	const title = "The sign-in failed"
	f := newFake(t)
	f.claims = map[string]any{"groups": nil}
	f.refused("none where it should be", 502, title, `cause="userinfo: 404 Not Found: 404 page not found\n"`)
	f.userinfo = map[string]any{"sub": "mallory", "groups": []string{"admins"}}
	f.refused("about somebody else", 502, title, `cause="userinfo: it is about another subject than the ID token"`)
	f.userinfo = map[string]any{"groups": []string{"admins"}}
	f.refused("about nobody", 502, title, `another subject`)
	f.document = map[string]any{"userinfo_endpoint": nil}
	f.offset.Add(int64(2 * time.Hour))
	for range 200 { // until discovery is renewed in the background
		b := f.browser()
		b.get(auth + "/")
		if b.session(auth) != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("without the endpoint nobody is signed in")
}

func TestDiscovery(t *testing.T) {
	const title = "Sign-in is not available"
	for name, c := range map[string]struct {
		document map[string]any
		cause    string
	}{
		"another issuer":              {map[string]any{"issuer": "https://evil.example"}, "did not match the issuer URL returned by provider"},
		"a script in place of an URL": {map[string]any{"authorization_endpoint": "javascript:alert(1)"}, `authorization_endpoint \"javascript:alert(1)\" is no URL with the issuer's scheme`},
		"no token endpoint":           {map[string]any{"token_endpoint": nil}, `token_endpoint \"\" is no URL`},
		"keys from a file":            {map[string]any{"jwks_uri": "file:///etc/passwd"}, `jwks_uri \"file:///etc/passwd\" is no URL`},
		"no JSON we know":             {map[string]any{"issuer": 7}, "failed to decode provider discovery object"},
		"too long":                    {map[string]any{"x": strings.Repeat("x", 2<<20)}, "request body too large"},
	} {
		f := newFake(t)
		f.document = c.document
		f.refused(name, 503, title, c.cause)
	}
	f := newFake(t)
	f.document = map[string]any{"end_session_endpoint": "javascript:alert(1)"}
	b := f.browser()
	b.get(auth + "/")
	if got := b.step(auth + prefix + "/sign_out").next(t); got != auth+prefix+"/signed_out" {
		t.Errorf("signs out to %s", got)
	}
	f = newFake(t)
	b = f.browser()
	b.get(auth + "/")
	if got := b.step(auth + prefix + "/sign_out").next(t); !strings.HasPrefix(got, f.issuer+"/end?client_id=doorward&id_token_hint=") || !strings.HasSuffix(got, "&x=y") {
		t.Errorf("the endpoint's own query is lost: %s", got)
	}
}

func TestEndpoints(t *testing.T) {
	for endpoint, want := range map[string][2]bool{ // of an https issuer, of an http one
		"https://id.example/x?y": {true, true}, "http://id.example/x": {false, true}, "": {}, "/x": {}, "//id.example": {}, "https:///x": {},
		"https://user:pw@id.example/": {}, "https://id.example/#f": {}, "javascript:alert(1)": {}, "ftp://id.example/": {}, "https://id.example/%zz": {},
	} {
		if got := [2]bool{isEndpoint(endpoint, "https://id.example"), isEndpoint(endpoint, "http://id.example")}; got != want {
			t.Errorf("%q: got %v, want %v", endpoint, got, want)
		}
	}
}
