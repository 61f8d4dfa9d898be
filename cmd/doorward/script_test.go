package main

import (
	"os"
	"testing"

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
	testscript.Run(t, testscript.Params{Dir: "testdata/script", UpdateScripts: os.Getenv("UPDATE_SCRIPTS") == "1"})
}
