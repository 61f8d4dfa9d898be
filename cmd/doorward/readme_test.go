package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/policy"
	"doorward/cmd/internal/markdown"
	"doorward/xds/cert"
)

// Sections of the README: the configuration that the commands are run with, and what cmd/demo runs in the demo.
const (
	smallestSection = "The smallest configuration"
	walkthrough     = "Viewers read, admins write"
	pushing         = "Push a second application"
)

// readmeOutcomes are what the policies of the README decide: what the text around them says. Somebody is their groups.
var readmeOutcomes = map[string][]struct{ groups, method, want string }{
	"grafana": {
		{"grafana-admins", "POST", `allow {"role":"Admin"}`},
		{"staff", "POST", `allow {"role":"Viewer"}`},
		{"contractors", "GET", `allow {"role":"Viewer"}`},
		{"contractors", "POST", `deny ["contractors may only read"]`},
		{"", "GET", `deny null`},
	},
	"wiki": {
		{"viewers", "GET", `allow null`},
		{"viewers", "POST", `deny ["Only admins may change the wiki. Ask Alice to become one."]`},
		{"viewers", "DELETE", `deny ["Only admins may change the wiki. Ask Alice to become one."]`},
		{"grafana-admins", "GET", `allow null`},
		{"grafana-admins", "DELETE", `allow null`},
		{"", "GET", `deny null`},
	},
	"notes": {
		{"engineering", "GET", `allow null`},
		{"viewers", "GET", `deny null`},
	},
}

// TestREADME tries each block of the README: policies compile and decide as the text says, their tests pass, the configuration loads, and
// the commands are what they are said to be. A block of which no test knows is a fault.
func TestREADME(t *testing.T) {
	text := readme(t)
	dir := smallest(t, text)
	in := func(section, block string) bool {
		return strings.Contains(markdown.Section(text, section), indent(block, "    "))
	}
	tried := map[string]int{}
	for _, block := range markdown.Blocks(text) {
		kind, try := "", func(*testing.T) {}
		switch {
		case strings.HasPrefix(block, "package "):
			file := packageFile(block)
			kind = "policy"
			try = func(t *testing.T) { tryPolicy(t, text, dir, file, block) }
		case strings.HasPrefix(block, "bundles:"):
			kind, try = "bundles", func(t *testing.T) { tryBundles(t, dir, block) }
		case strings.HasPrefix(block, "tls:"):
			kind, try = "tls", func(t *testing.T) { tryTLS(t, block) }
		case strings.HasPrefix(block, "- name: "):
			kind, try = "routes", func(t *testing.T) { tryRoutes(t, block) }
		case strings.HasPrefix(block, "idp:") && in(smallestSection, block):
			kind = "configuration" // smallest has loaded it
		case strings.HasPrefix(block, "make "):
			kind, try = "make", func(t *testing.T) { tryMake(t, block) }
		case in(walkthrough, block), in(pushing, block):
			kind = "walk-through"
		case in(nodesSection, block):
			kind = "nodes" // TestREADMENodes types it
		case strings.HasPrefix(block, "doorward tcp "):
			kind, try = "tcp", func(t *testing.T) { tryTCP(t, text, block) }
		case strings.HasPrefix(block, "doorward "):
			kind, try = "commands", func(t *testing.T) { tryCommands(t, dir, block) }
		case strings.HasPrefix(block, "$ doorward "):
			kind = "transcript" // TestREADMETranscript types it
		case strings.Contains(block, "session -> policy -> token"):
			kind = "picture"
		default:
			t.Errorf("no test tries this block of the README:\n%s", block)
			continue
		}
		tried[kind]++
		t.Run(kind, try)
	}
	for kind, least := range map[string]int{"policy": 3, "configuration": 1, "bundles": 1, "routes": 2, "make": 1, "commands": 1, "walk-through": 7, "transcript": 1, "nodes": 2, "tls": 1, "tcp": 1} {
		if tried[kind] < least {
			t.Errorf("of the kind %q the README has %d blocks, not %d", kind, tried[kind], least)
		}
	}
}

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// smallest makes a directory with the smallest configuration and the files that it names, and holds that it loads. So that a test may listen,
// its addresses are changed as the text says.
func smallest(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	ca, err := cert.NewLocalCA(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := ca.Certificate("grafana.example.com")
	if err != nil {
		t.Fatal(err)
	}
	block := ""
	for _, b := range markdown.Blocks(markdown.Section(text, smallestSection)) {
		if strings.HasPrefix(b, "idp:") {
			block = b
		}
	}
	const listen = `listen: {https: ":8443", http: "off"}`
	if !strings.Contains(text, "`"+listen+"`") {
		t.Errorf("the README does not say how to listen elsewhere: %s", listen)
	}
	other := strings.Replace(listen, ":8443", fmt.Sprintf("127.0.0.1:%d", freePort(t)), 1) + "\n"
	for name, content := range map[string]string{
		"tls/grafana.pem": string(chain), "tls/grafana.key": string(key), "secrets/oidc": "hush\n", "doorward.yaml": block,
	} {
		put(t, filepath.Join(dir, name), content)
	}
	if _, err := config.Load(filepath.Join(dir, "doorward.yaml")); err != nil {
		t.Errorf("%s\n%v", block, err)
	}
	put(t, filepath.Join(dir, "doorward.yaml"), block+other)
	return dir
}

// tryRoutes loads routes.
func tryRoutes(t *testing.T, block string) {
	file := filepath.Join(t.TempDir(), "doorward.yaml")
	put(t, file, "idp: {issuer: \"https://idp.example.com\", client_id: doorward, client_secret: hush}\ntls: {local_ca: true}\nroutes:\n"+indent(block, "  "))
	if _, err := config.Load(file); err != nil {
		t.Error(err)
	}
}

// tryTCP holds that a command is understood, and that the README has the route that it is for. TestTCPService connects by one.
func tryTCP(t *testing.T, text, block string) {
	cmd, args, err := root().Find(strings.Fields(block)[1:])
	if err == nil {
		err = cmd.ParseFlags(args)
	}
	if err != nil || cmd.Name() != "tcp" || cmd.Flags().NArg() != 1 {
		t.Fatalf("%s is not understood: %v", block, err)
	}
	if want := "from: tcp+https://" + cmd.Flags().Arg(0) + "\n"; !strings.Contains(text, want) {
		t.Errorf("no route of the README has %s", want)
	}
}

// tryTLS loads a part of a configuration for a host that needs it.
func tryTLS(t *testing.T, block string) {
	file := filepath.Join(t.TempDir(), "doorward.yaml")
	put(t, file, block+"\nroutes: [{name: a, from: \"https://a.example.com\", to: \"http://a\", policy: public}]\n")
	if _, err := config.Load(file); err != nil {
		t.Error(err)
	}
}

// tryBundles loads a part of a configuration together with the smallest one.
func tryBundles(t *testing.T, dir, block string) {
	text, err := os.ReadFile(filepath.Join(dir, "doorward.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "keys/acme.pem"), string(newBundleServer(t).public))
	put(t, filepath.Join(dir, "bundles.yaml"), string(text)+block)
	c, err := config.Load(filepath.Join(dir, "bundles.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if b := c.Bundles[0]; b.Name != "acme" || time.Duration(b.Poll) != time.Minute {
		t.Errorf("the bundle is %+v", b)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// packageFile is the name of the file that a package is in by convention.
func packageFile(block string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(block, "package "), "\n")
	return strings.TrimSpace(name) + ".rego"
}

// tryPolicy loads a policy and holds what it decides, or runs a test with the policy that was before it.
func tryPolicy(t *testing.T, text, dir, file, block string) {
	path := filepath.Join(dir, "policies", file)
	put(t, path, block)
	if strings.HasSuffix(file, "_test.rego") {
		if !strings.Contains(text, "`policies/"+file+"`") {
			t.Errorf("the README does not say that this is policies/%s", file)
		}
		report, err := policy.Test(t.Context(), policy.TestConfig{Config: policy.Config{Paths: []string{filepath.Dir(path)}}})
		if err != nil || report.Failed > 0 || report.Passed < 3 {
			t.Errorf("%s: %v, %+v", file, err, report)
		}
		return
	}
	set, err := policy.Load(t.Context(), policy.Config{Paths: []string{path}})
	if err != nil {
		t.Fatalf("%s\n%v", block, err)
	}
	name := strings.TrimSuffix(file, ".rego")
	p, err := set.Policy(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(readmeOutcomes[name]) == 0 {
		t.Errorf("no test holds what package %s decides", name)
	}
	for _, row := range readmeOutcomes[name] {
		d := p.Decide(t.Context(), &policy.Input{
			User: &policy.User{Groups: strings.Fields(row.groups)}, Session: &policy.Session{}, Request: policy.Request{Method: row.method},
		})
		if got := said(d); got != row.want {
			t.Errorf("package %s: %s of somebody in %q: %s, want %s", name, row.method, row.groups, got, row.want)
		}
	}
}

// said is a decision in one line: with the claims when it allows, with the reasons otherwise.
func said(d policy.Decision) string {
	word, details := "deny ", any(d.Reasons)
	switch {
	case d.Err != nil:
		return d.Err.Error()
	case d.Allow && d.Claims == nil:
		return "allow null"
	case d.Allow:
		word, details = "allow ", d.Claims
	}
	text, err := json.Marshal(details)
	if err != nil {
		return err.Error()
	}
	return word + string(text)
}

// tryMake wants a target of the Makefile for each line.
func tryMake(t *testing.T, block string) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(block) {
		target := strings.Fields(line)[1]
		if !strings.Contains(string(makefile), "\n"+target+":") {
			t.Errorf("the Makefile has no target %s", target)
		}
	}
}

// readmeCommands are the commands of the README and what they print. What runs until it is ended prints nothing that is waited for.
var readmeCommands = map[string]struct {
	want  string // regular expression
	runs  bool   // until it is ended
	envoy bool   // needs one
}{
	"doorward check doorward.yaml":           {want: `(?m)^doorward.yaml: good, 1 route on 1 host, checksum [0-9a-f]{12}$`},
	"doorward up --config doorward.yaml":     {runs: true, envoy: true},
	"doorward check --wait doorward.yaml":    {want: `(?m)^doorward.yaml: good and served, `, envoy: true},
	"doorward status --config doorward.yaml": {want: `"served": true`, envoy: true},
	"doorward ca --data-dir data":            {want: `^-----BEGIN CERTIFICATE-----`},
}

// tryCommands runs each line as a person types it, in the order of the README.
func tryCommands(t *testing.T, dir, block string) {
	for line := range strings.Lines(block) {
		command, comment, _ := strings.Cut(strings.TrimSpace(line), "#")
		command = strings.TrimSpace(command)
		known, found := readmeCommands[command]
		switch {
		case !found || comment == "":
			t.Errorf("nothing holds what this does, or it is not said: %s", line)
		case known.envoy && os.Getenv("DOORWARD_E2E") != "1":
			t.Logf("SKIPPED: %s needs an Envoy; make test runs it (DOORWARD_E2E=1)", command)
		case known.runs:
			start(t, dir, command)
		default:
			prints(t, dir, command, known.want)
		}
	}
}

// start runs a command until the test ends, and wants it to end well.
func start(t *testing.T, dir, command string) {
	t.Helper()
	cmd := shell(context.Background(), dir, "exec "+command)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // that it has ended is found below
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s ended with %v\n%s", command, err, &log)
		}
	})
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if shell(t.Context(), dir, "doorward health --data-dir data").Run() == nil {
			return
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("%s has no configuration after %v", command, time.Since(begun))
		}
	}
}

func prints(t *testing.T, dir, command, want string) {
	t.Helper()
	out, err := shell(t.Context(), dir, command).Output()
	if err != nil || !regexp.MustCompile(want).Match(out) {
		t.Errorf("%s prints\n%s\nwant %s\n%v", command, out, want, failure(err))
	}
}

func shell(ctx context.Context, dir, command string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = dir
	return cmd
}

// failure adds what a command has written to its standard error.
func failure(err error) error {
	if exit, ok := err.(*exec.ExitError); ok {
		return fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	return err
}
