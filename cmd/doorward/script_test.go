package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain also makes the test binary the program itself, for the scripts, and the benchmark's servers.
func TestMain(m *testing.M) {
	if name := os.Getenv(benchServer); name != "" {
		benchMain(name)
		return
	}
	testscript.Main(m, map[string]func(){"doorward": main})
}

// TestScripts runs what a person types and holds what they see. With UPDATE_SCRIPTS=1 what they see is written into the scripts.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: os.Getenv("UPDATE_SCRIPTS") == "1",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"eventually": eventually, "genkey": genkey, "gencert": gencert},
		Setup: func(e *testscript.Env) error {
			e.Setenv("PORT", strconv.Itoa(freePort(t)))
			return nil
		},
	})
}

// eventually COMMAND ARGS... -- PATTERN runs a command until it succeeds with an output that matches, for which stdout then is.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	n := len(args) - 2
	if neg || n < 1 || args[n] != "--" {
		ts.Fatalf("usage: eventually COMMAND ARGS... -- PATTERN")
	}
	pattern := regexp.MustCompile("(?m)" + args[n+1])
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = ts.Exec(args[0], args[1:n]...); err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("no success with %q: %v\n%s%s", args[n+1], err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
}

// genkey FILE writes a signing key.
func genkey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: genkey FILE")
	}
	text, err := newSigningKey()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
}

// newSigningKey returns a key for jwt.signing_key_file.
func newSigningKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
