package deploy_test

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"doorward/authz/config"
	"doorward/authz/policy"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// doorward loads doorward.yaml. The files that only the containers have stand in a directory of the test's.
func doorward(t *testing.T) *config.Config {
	t.Helper()
	dir := t.TempDir()
	text := read(t, "doorward.yaml")
	for inside, content := range map[string]string{
		"/run/secrets/oidc-client": "a secret of the test's\n",
		"/trust/doorward-ca.pem":   certificate(t),
	} {
		here := filepath.Join(dir, filepath.Base(inside))
		if err := os.WriteFile(here, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, inside) {
			t.Fatalf("doorward.yaml does not name %s", inside)
		}
		text = strings.ReplaceAll(text, inside, here)
	}
	if err := os.CopyFS(filepath.Join(dir, "policies"), os.DirFS("policies")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "doorward.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// realm is what the tests read of keycloak/realm.json.
type realm struct {
	Realm   string
	Enabled bool
	Groups  []struct{ Name string }
	Users   []struct {
		ID, Username, Email string
		Enabled             bool
		EmailVerified       bool
		Groups              []string
		Credentials         []struct {
			Type, Value string
			Temporary   bool
		}
	}
	Clients []struct {
		ClientID                  string
		Secret                    string
		PublicClient              bool
		StandardFlowEnabled       bool
		ImplicitFlowEnabled       bool
		DirectAccessGrantsEnabled bool
		RedirectURIs              []string
		Attributes                map[string]string
		ProtocolMappers           []struct {
			ProtocolMapper string
			Config         map[string]string
		}
	}
}

func keycloak(t *testing.T) realm {
	t.Helper()
	var r realm
	if err := json.Unmarshal([]byte(read(t, "keycloak/realm.json")), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Clients) != 1 {
		t.Fatalf("the realm has %d clients, want 1", len(r.Clients))
	}
	return r
}

// Every host has one URL, and whoever asks for it inside finds Envoy on the port that the browser uses.
func TestHostsAgree(t *testing.T) {
	c, p := doorward(t), project(t)
	if got, want := c.Listen.HTTPS, ":8443"; got != want {
		t.Errorf("listen.https is %q, want %q, the port that compose.yaml publishes", got, want)
	}
	aliases := service(t, p, "envoy").Networks["edge"].Aliases
	hosts := map[string]bool{c.AuthURL.Hostname(): true}
	for _, r := range c.Routes {
		hosts[r.Host()] = true
		if r.From.Port() != 8443 {
			t.Errorf("route %s is at port %d, want 8443", r.Name, r.From.Port())
		}
		for _, to := range r.To {
			if s := service(t, p, to.URL.Hostname()); len(s.Networks) != 1 {
				t.Errorf("route %s leads to %s, which is on %d networks", r.Name, s.Name, len(s.Networks))
			}
		}
	}
	for host := range hosts {
		if !slices.Contains(aliases, host) {
			t.Errorf("inside, %s does not lead to envoy: its aliases are %q", host, aliases)
		}
	}
	if len(aliases) != len(hosts) {
		t.Errorf("envoy has the aliases %q for %d hosts", aliases, len(hosts))
	}
	if got := service(t, p, "envoy").Networks["grafana"].Aliases; !slices.Equal(got, []string{"grafana.localhost"}) {
		t.Errorf("grafana finds envoy as %q", got)
	}
}

func TestGrafanaAndItsRouteAgree(t *testing.T) {
	c := doorward(t)
	i := slices.IndexFunc(c.Routes, func(r config.Route) bool { return r.Name == "grafana" })
	if i < 0 {
		t.Fatal("no route is named grafana")
	}
	r := c.Routes[i]
	var expect map[string]string
	if err := json.Unmarshal([]byte(ours["GF_AUTH_JWT_EXPECT_CLAIMS"]), &expect); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ what, got, want string }{
		{"header", c.JWT.Header, guide["GF_AUTH_JWT_HEADER_NAME"]},
		{"JWKS", r.From.Origin() + c.Paths.JWKS, guide["GF_AUTH_JWT_JWK_SET_URL"]},
		{"sign-out", r.From.Origin() + c.Paths.Prefix + "/sign_out", guide["GF_AUTH_SIGNOUT_REDIRECT_URL"]},
		{"issuer", r.Host(), expect["iss"]},
		{"audience", r.Host(), expect["aud"]},
		{"upstream", r.To[0].URL.String(), "http://grafana:3000"},
	} {
		if row.got != row.want {
			t.Errorf("%s: Doorward has %q, Grafana expects %q", row.what, row.got, row.want)
		}
	}
	if !r.PassIdentity() || !r.PreserveHostHeader || !r.AllowWebsockets || r.Anonymous() {
		t.Errorf("the route does not suit Grafana: %+v", r)
	}
}

func TestKeycloakAndDoorwardAgree(t *testing.T) {
	c, r, s := doorward(t), keycloak(t), service(t, project(t), "keycloak")
	client := r.Clients[0]
	public := text(s.Environment["KC_HOSTNAME"])
	for _, row := range []struct{ what, got, want string }{
		{"issuer", c.IDP[0].Issuer.String(), public + "/realms/" + r.Realm},
		{"client", c.IDP[0].ClientID, client.ClientID},
		{"secret", "${DOORWARD_CLIENT_SECRET}", client.Secret},
		{"PKCE", "S256", client.Attributes["pkce.code.challenge.method"]},
	} {
		if row.got != row.want {
			t.Errorf("%s: Doorward has %q, Keycloak %q", row.what, row.got, row.want)
		}
	}
	if want := []string{c.AuthURL.Origin() + c.Paths.Prefix + "/callback"}; !slices.Equal(client.RedirectURIs, want) {
		t.Errorf("the client's redirect URIs are %q, want %q", client.RedirectURIs, want)
	}
	if client.PublicClient || client.ImplicitFlowEnabled || client.DirectAccessGrantsEnabled || !client.StandardFlowEnabled {
		t.Errorf("the client allows more than the code flow with a secret: %+v", client)
	}
	if !strings.Contains(strings.Join(s.Command, " "), `DOORWARD_CLIENT_SECRET="$(</run/secrets/oidc-client)"`) {
		t.Errorf("keycloak does not read the client's secret from the file that Doorward reads: %q", s.Command)
	}
	mapper := client.ProtocolMappers[0]
	if mapper.ProtocolMapper != "oidc-group-membership-mapper" || mapper.Config["claim.name"] != c.IDP[0].GroupsClaim ||
		mapper.Config["full.path"] != "false" || mapper.Config["id.token.claim"] != "true" {
		t.Errorf("groups are not in the claim %q of the ID token by their plain names: %+v", c.IDP[0].GroupsClaim, mapper)
	}
}

// The realm's pages are on a route; its administration and the master realm are on none.
func TestKeycloakIsReachedNoFurtherThanNeeded(t *testing.T) {
	c := doorward(t)
	issuer, err := url.Parse(c.IDP[0].Issuer.String())
	if err != nil {
		t.Fatal(err)
	}
	var prefixes []string
	for _, r := range c.Routes {
		if r.Host() != c.IDP[0].Issuer.Hostname() {
			continue
		}
		prefixes = append(prefixes, r.Prefix)
		if r.Path != "" || r.Regex != "" || !r.Public() || r.PassIdentity() || !r.PreserveHostHeader {
			t.Errorf("route %s does not suit Keycloak: %+v", r.Name, r)
		}
	}
	if want := []string{issuer.Path, "/resources"}; !slices.Equal(prefixes, want) {
		t.Errorf("Keycloak is reached at %q, want %q", prefixes, want)
	}
	for name := range service(t, project(t), "keycloak").Environment {
		if strings.Contains(name, "ADMIN") {
			t.Errorf("%s makes an administrator with a password that everybody can read", name)
		}
	}
	if strings.Contains(read(t, "keycloak/realm.json"), `"clientScopes"`) {
		t.Error("clientScopes in the realm's file replaces Keycloak's own, and profile and email with them")
	}
}

// Each of the realm's users signs in with their name as password, and the policy gives them what README says.
func TestUsersAndPolicy(t *testing.T) {
	want := map[string]string{"alice": "Admin", "bob": "Viewer", "mallory": ""}
	p := grafanaPolicy(t)
	users := keycloak(t).Users
	if len(users) != len(want) {
		t.Errorf("the realm has %d users, want %d", len(users), len(want))
	}
	for _, u := range users {
		if !u.Enabled || !u.EmailVerified || u.ID == "" || u.Email != u.Username+"@example.com" {
			t.Errorf("%s has no fixed id or no verified address: %+v", u.Username, u)
		}
		if c := u.Credentials; len(c) != 1 || c[0].Type != "password" || c[0].Value != u.Username || c[0].Temporary {
			t.Errorf("%s does not sign in with their name", u.Username)
		}
		groups := make([]string, len(u.Groups))
		for i, g := range u.Groups {
			groups[i] = strings.TrimPrefix(g, "/")
		}
		if got := role(t, p, groups); got != want[u.Username] {
			t.Errorf("%s of %q is %q, want %q", u.Username, groups, got, want[u.Username])
		}
	}
}

func TestPolicy(t *testing.T) {
	p := grafanaPolicy(t)
	for _, row := range []struct {
		groups []string
		role   string
	}{
		{[]string{"engineering", "grafana-admins"}, "Admin"},
		{[]string{"viewers", "engineering"}, "Editor"},
		{[]string{"viewers"}, "Viewer"},
		{[]string{}, ""},
		{[]string{"Viewers"}, ""},
		{[]string{"/viewers"}, ""},
		{[]string{"viewers "}, ""},
	} {
		if got := role(t, p, row.groups); got != row.role {
			t.Errorf("a member of %q is %q, want %q", row.groups, got, row.role)
		}
	}
}

func grafanaPolicy(t *testing.T) *policy.Policy {
	t.Helper()
	set, err := policy.Load(t.Context(), policy.Config{Paths: []string{"policies"}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := set.Policy("grafana")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// role returns the Grafana role that the policy puts into the JWT, or "" when it denies and says why.
func role(t *testing.T, p *policy.Policy, groups []string) string {
	t.Helper()
	d := p.Decide(t.Context(), &policy.Input{User: &policy.User{ID: "1", Groups: groups}, Session: &policy.Session{ID: "s"}})
	if d.Err != nil {
		t.Fatal(d.Err)
	}
	if !d.Allow {
		if len(d.Reasons) != 1 || !strings.HasPrefix(d.Reasons[0], "Grafana is open to the groups ") {
			t.Errorf("%q is denied with the reasons %q", groups, d.Reasons)
		}
		return ""
	}
	claim, _ := d.Claims["grafana"].(map[string]any)
	name, _ := claim["role"].(string)
	return name
}
