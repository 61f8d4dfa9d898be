package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"doorward/xds"
)

// writeWeakPair writes a certificate that Go takes and Envoy does not: RSA with 1,024 bits. It returns the paths of certificate and key.
func writeWeakPair(t *testing.T, dir, host string) (certFile, keyFile string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "weak.pem"), filepath.Join(dir, "weak.key")
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)},
	} {
		writeText(t, path, string(pem.EncodeToMemory(block)))
	}
	return certFile, keyFile
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const tooWeak = "envoy would refuse it: Failed to load certificate chain from <inline>, only RSA certificates with 2048-bit or larger keys are supported"

func TestCheckAsksAnEnvoy(t *testing.T) {
	binary := externalParts(t)
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeWeakPair(t, dir, "weak.example.com")
	writeText(t, filepath.Join(dir, "doorward.yaml"), `
idp: {issuer: "https://idp.example.com", client_id: doorward, client_secret: hush}
auth_url: https://a.localhost
tls: {certificates: [{cert_file: weak.pem, key_file: weak.key}]}
routes:
  - {name: a, from: "https://a.localhost", to: "http://up", policy: public}
  - {name: weak, from: "https://weak.example.com", to: "http://up", policy: public}
  - {name: b, from: "https://b.localhost", to: "https://up", tls_client_cert_file: weak.pem, tls_client_key_file: weak.key, policy: public}
  - {name: c, from: "https://c.localhost", to: "http://up", regex: "/(x|y)+", policy: any_authenticated_user}
`)
	run := func(flags ...string) string {
		cmd := exec.Command(path, append([]string{"check"}, flags...)...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput() // its status is in what it says
		return string(out)
	}
	got := run("--envoy", binary)
	for _, want := range []string{
		`host "b.localhost", upstream "https://up:443#`, `": ` + tooWeak + "\n",
		`host "weak.example.com", certificate: ` + tooWeak + "\n", "doorward.yaml: 2 problem(s)\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("check says\n%s\nwithout %q", got, want)
		}
	}
	if got := run("--envoy", "off"); !strings.Contains(got, "doorward.yaml: good, 4 routes on 4 hosts") || strings.Contains(got, "would take it") {
		t.Errorf("without an Envoy: %s", got)
	}
	const missing = "envoy: --envoy names /no/such/envoy, which does not exist\ndoorward.yaml: 1 problem(s)\n"
	if got := run("--envoy", "/no/such/envoy"); got != missing {
		t.Errorf("with one that is not there: %q, want %q", got, missing)
	}
	writeText(t, filepath.Join(dir, "doorward.yaml"), `
idp: {issuer: "https://idp.example.com", client_id: doorward, client_secret: hush}
routes: [{name: a, from: "https://a.localhost", to: "https://up", allow_websockets: true, policy: public}]
`)
	if got := run("--envoy", binary); !strings.Contains(got, "Envoy 1.40.0 would take it\ndoorward.yaml: good, ") {
		t.Errorf("a good one: %s", got)
	}
	if got := run("--envoy", binary, "--format", "json"); !strings.Contains(got, `"envoy": "1.40.0"`) {
		t.Errorf("a good one as JSON: %s", got)
	}
}

// TestAPushAsksAnEnvoy: what an Envoy would refuse is not pushed; pushed all the same, it is rejected by the Envoy that runs.
func TestAPushAsksAnEnvoy(t *testing.T) {
	f := newFleet(t, externalParts(t))
	left := filepath.Join(f.dir, "data", "run", "doorward-validate-1")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(left, "bootstrap.pb"), "a private key")
	f.kill()
	f.startDoorward()
	if _, err := os.Stat(left); err == nil {
		t.Error("what a killed doorward has left of a validation is still there")
	}
	f.startEnvoy()
	f.mustApply(nil, f.route("a", speaker(t, "a")))
	certFile, keyFile := writeWeakPair(t, f.dir, "up")
	weak := strings.TrimSuffix(f.route("weak", "https://up"), "}") + ", tls_client_cert_file: " + certFile + ", tls_client_key_file: " + keyFile + "}"
	_, err := f.apply("validate=envoy&wait=10s", nil, weak, f.route("b", speaker(t, "b")))
	if err == nil || !strings.Contains(err.Error(), `host "weak.localhost", upstream "https://up:443#`) || !strings.HasSuffix(err.Error(), tooWeak) {
		t.Fatalf("pushed with %v", err)
	}
	if status, _, err := f.ask("b"); err == nil {
		t.Errorf("a part of a refused change is served: %d", status)
	}
	if _, err := f.apply("validate=envoy&wait=10s", nil, f.route("b", speaker(t, "b"))); err != nil {
		t.Fatal(err)
	}
	f.says("b", "b", 5*time.Second)
	answer, err := f.apply("wait=10s", nil, weak, f.route("c", speaker(t, "c")))
	if err != nil || len(answer.Envoys) != 1 || answer.Envoys[0].State != xds.Rejected || !strings.HasSuffix(answer.Envoys[0].Rejected[0].Message, "are supported") {
		t.Fatalf("not validated: %+v, %v", answer, err)
	}
	for _, name := range []string{"a", "b", "c"} {
		f.says(name, name, 5*time.Second)
	}
}
