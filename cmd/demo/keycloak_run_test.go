package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"doorward/envoy"
	"doorward/xds/cert"
)

const (
	// keycloakWithin is how long it may take to start, and two looks at it.
	keycloakWithin = 3 * time.Minute
	keycloakLook   = 300 * time.Millisecond
)

// keycloak is a real one with the realm that deploy/ has.
type keycloak struct {
	t      *testing.T
	origin string
	client http.Client
	log    string // a file
}

// findKeycloak skips when there is none to be used. With DOORWARD_E2E=1 that is a failure.
func findKeycloak(t *testing.T) string {
	t.Helper()
	if os.Getenv("DOORWARD_E2E") != "1" {
		t.Skip("SKIPPED: this test runs a real Keycloak; make test runs it (DOORWARD_E2E=1)")
	}
	home := os.Getenv("KEYCLOAK")
	if home == "" {
		_, version, _ := strings.Cut(read(filepath.Join(repository(), "deploy", "keycloak", "fetch.sh")), "\nversion=")
		version, _, _ = strings.Cut(version, "\n")
		home = filepath.Join(repository(), ".tools", "keycloak-"+version)
	}
	if _, err := os.Stat(filepath.Join(home, "bin", "kc.sh")); err != nil {
		t.Fatal("Keycloak is missing: sh deploy/keycloak/fetch.sh fetches it, or KEYCLOAK names its directory: ", err)
	}
	if _, err := exec.LookPath("java"); err != nil {
		t.Fatal("Java is missing: install the package default-jre-headless")
	}
	return home
}

// startKeycloak starts one that finds the hosts below .localhost on this machine and trusts the local CA for them. It does not wait.
func startKeycloak(t *testing.T, home, dir string) *keycloak {
	t.Helper()
	address := freeAddress(t)
	k := &keycloak{t: t, origin: "http://localhost" + address[strings.LastIndexByte(address, ':'):], log: filepath.Join(dir, "keycloak.log"),
		client: http.Client{Timeout: 20 * time.Second}}
	hosts := filepath.Join(dir, "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost auth.localhost\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(k.log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(home, "bin", "kc.sh"), "start", "--optimized", "--http-enabled=true", "--http-host=127.0.0.1",
		"--http-port="+address[strings.LastIndexByte(address, ':')+1:], "--hostname="+k.origin, "--truststore-paths="+filepath.Join(dir, caFile))
	cmd.Env = append(os.Environ(), "JAVA_OPTS_KC_HEAP=-Xms64m -Xmx512m", "JAVA_OPTS_APPEND=-Djdk.net.hosts.file="+hosts+" -XX:TieredStopAtLevel=1",
		"KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD=admin")
	cmd.Stdout, cmd.Stderr = log, log
	ended, err := envoy.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stopGroup(cmd.Process.Pid)
		<-ended
		log.Close()
	})
	return k
}

// ready waits until it answers.
func (k *keycloak) ready() {
	k.t.Helper()
	for begun := time.Now(); ; time.Sleep(keycloakLook) {
		resp, err := k.client.Get(k.origin + "/realms/master/.well-known/openid-configuration")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Since(begun) > keycloakWithin {
			text, _ := os.ReadFile(k.log)
			k.t.Fatalf("Keycloak does not answer after %v: %v\n%s", keycloakWithin, err, text)
		}
	}
}

// realm makes one of the file that deploy/ has, under a name, for a Doorward at a port.
func (k *keycloak) realm(name string, port int) {
	k.t.Helper()
	text, err := os.ReadFile("../../deploy/keycloak/realm.json")
	if err != nil {
		k.t.Fatal(err)
	}
	var realm map[string]any
	text = bytes.ReplaceAll(text, []byte("auth.localhost:8443"), fmt.Appendf(nil, "auth.localhost:%d", port))
	if err := json.Unmarshal(text, &realm); err != nil {
		k.t.Fatal(err)
	}
	realm["realm"] = name
	for _, user := range realm["users"].([]any) {
		delete(user.(map[string]any), "id") // two realms have one each
	}
	client := realm["clients"].([]any)[0].(map[string]any)
	client["secret"] = "hush"
	client["attributes"].(map[string]any)["backchannel.logout.url"] = fmt.Sprintf("https://auth.localhost:%d/.pomerium/backchannel_logout", port)
	k.admin(http.MethodPost, "", realm, nil)
}

// admin calls Keycloak's admin API below /admin/realms.
func (k *keycloak) admin(method, path string, in, out any) {
	k.t.Helper()
	login, err := k.client.PostForm(k.origin+"/realms/master/protocol/openid-connect/token",
		url.Values{"client_id": {"admin-cli"}, "grant_type": {"password"}, "username": {"admin"}, "password": {"admin"}})
	if err != nil {
		k.t.Fatal(err)
	}
	var token struct {
		Access string `json:"access_token"`
	}
	if err := decodeBody(login, &token); err != nil {
		k.t.Fatal(err)
	}
	body, err := json.Marshal(in)
	if err != nil {
		k.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(k.t.Context(), method, k.origin+"/admin/realms"+path, bytes.NewReader(body))
	if err != nil {
		k.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Access)
	req.Header.Set("Content-Type", "application/json")
	resp, err := k.client.Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	if err := decodeBody(resp, out); err != nil {
		k.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// decodeBody reads an answer's JSON into out, unless that is nil.
func decodeBody(resp *http.Response, out any) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

// user is the id of a user of the realm main.
func (k *keycloak) user(name string) string {
	k.t.Helper()
	return k.idOf("/main/users?exact=true&username=" + name)
}

// idOf is the id of the first of a list.
func (k *keycloak) idOf(path string) string {
	k.t.Helper()
	var list []struct {
		ID string `json:"id"`
	}
	if k.admin(http.MethodGet, path, nil, &list); len(list) == 0 {
		k.t.Fatalf("%s: none", path)
	}
	return list[0].ID
}

// keycloakRoutes are decided by the demo's policies.
const keycloakRoutes = `
idp:
  - {name: main, label: "Example staff", issuer: "%[1]s/realms/main", client_id: doorward, client_secret: hush}
  - {name: partners, label: "Partner companies", issuer: "%[1]s/realms/partners", client_id: doorward, client_secret: hush}
listen: {https: "127.0.0.1:%[2]d", http: "off"}
auth_url: https://auth.localhost:%[2]d
data_dir: data
socket_dir: %[4]s
policies: [%[5]s]
session: {refresh_interval: 1s}
routes:
  - {name: grafana, from: "https://grafana.localhost:%[2]d", to: "%[3]s", policy: grafana, idp: main, allow_websockets: true}
  - {name: careful, from: "https://grafana.localhost:%[2]d", prefix: /careful, to: "%[3]s", policy: grafana, idp: main, max_age: 1m}
  - {name: wiki, from: "https://wiki.localhost:%[2]d", to: "%[3]s", policy: any_authenticated_user, idp: main}
  - {name: anybody, from: "https://wiki.localhost:%[2]d", prefix: /anybody, to: "%[3]s", policy: any_authenticated_user}
`

// runWithKeycloak starts Doorward, an application and Keycloak, all at once.
func runWithKeycloak(t *testing.T) (*running, *keycloak) {
	t.Helper()
	home := findKeycloak(t)
	r := &running{demo: newDemo(t)}
	if _, err := cert.NewLocalCA(filepath.Dir(r.path(caFile))); err != nil {
		t.Fatal(err)
	}
	k := startKeycloak(t, home, r.dir)
	r.others = []string{k.origin}
	r.bin = build(t)
	app := httptest.NewServer(http.HandlerFunc(whoIsThere))
	t.Cleanup(app.Close)
	sockets, err := os.MkdirTemp("", "dw") // their paths must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	policies, err := filepath.Abs("site/policies")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.path("doorward.yaml"), fmt.Appendf(nil, keycloakRoutes, k.origin, r.port, app.URL, sockets, policies), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.openLog(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	door, err := startDoorward(filepath.Join(r.bin, "doorward"), []string{"up", "--config", r.path("doorward.yaml")}, r.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		door.stop()
		if log := read(r.path("doorward.log")); strings.Contains(log, "DATA RACE") || strings.Contains(log, "ERROR") || t.Failed() {
			t.Errorf("doorward's log:\n%s", log)
		}
	})
	k.ready()
	k.realm("main", r.port)
	k.realm("partners", r.port)
	if err := r.waitReady(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, read(r.path("doorward.log")))
	}
	return r, k
}

// whoIsThere is the application: a page that says who the identity JWT speaks of and holds a WebSocket open, whose state is shown. The JWT is
// verified elsewhere.
func whoIsThere(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "websocket" {
		webSocket(w, r)
		return
	}
	var claims struct {
		Email  string   `json:"email"`
		Groups []string `json:"groups"`
	}
	if parts := strings.Split(r.Header.Get("X-Pomerium-Jwt-Assertion"), "."); len(parts) == 3 {
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(payload, &claims) // nobody is shown then
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!doctype html><html lang="en"><title>Application</title><link rel="icon" href="data:,"><p>%s in %s</p><p id="socket">no socket</p><script>
function live() {
	const socket = new WebSocket("/live"), shown = document.getElementById("socket")
	socket.onopen = () => shown.innerText = "socket open"
	socket.onclose = () => shown.innerText = "socket closed"
}
</script>`, html.EscapeString(claims.Email), html.EscapeString(strings.Join(claims.Groups, ", ")))
}

// webSocket opens one (RFC 6455, section 4.2.2) on which nothing is said.
func webSocket(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	_, _ = io.Copy(io.Discard, rw)
}
