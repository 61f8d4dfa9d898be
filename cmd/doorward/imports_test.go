package main

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImportsRunOneWay holds the layout: cmd may import everything, authz its sub-packages, xds only the configuration and the store, login the
// sessions and the pages, and everything else nothing of ours but the configuration and the store. Each large library has one importer.
func TestImportsRunOneWay(t *testing.T) {
	allowed := map[string][]string{
		"doorward/authz":                 {"doorward/authz/config", "doorward/authz/decision", "doorward/authz/policy", "doorward/authz/session", "doorward/authz/token", "doorward/authz/web", "doorward/authz/login", "doorward/authz/store", "doorward/authz/stream", "doorward/authz/admin", "doorward/authz/bearer"},
		"doorward/authz/admin":           {"doorward/authz/config", "doorward/authz/decision", "doorward/authz/store"},
		"doorward/authz/login":           {"doorward/authz/config", "doorward/authz/session", "doorward/authz/store", "doorward/authz/web"},
		"doorward/authz/stream":          {"doorward/authz/session"},
		"doorward/authz/bearer":          {"doorward/authz/config", "doorward/authz/session", "doorward/authz/store"},
		"doorward/authz/bundle":          {"doorward/authz/config"},
		"doorward/authz/policy":          {"doorward/authz/config", "doorward/policies"},
		"doorward/envoy":                 {"doorward/xds", "doorward/xds/node"},
		"doorward/xds":                   {"doorward/authz/config", "doorward/authz/store", "doorward/xds/node"},
		"doorward/xds/node":              {"doorward/authz/store", "doorward/xds/cert"},
		"doorward/xds/cert":              {"doorward/authz/config", "doorward/authz/store"},
		"doorward/xds/cert/acme":         {"doorward/authz/config", "doorward/authz/store", "doorward/xds/cert"},
		"doorward/authz/store/bolt":      {"doorward/authz/store"},
		"doorward/authz/store/storetest": {"doorward/authz/store"},
	}
	leaves := []string{"doorward/authz/config", "doorward/authz/store"}
	owners := map[string]string{
		"github.com/open-policy-agent/opa": "doorward/authz/policy",
		"github.com/lestrrat-go/jwx":       "doorward/authz/token",
		"github.com/coreos/go-oidc":        "doorward/authz/login",
		"github.com/go-jose/go-jose":       "doorward/authz/bearer",
		"go.etcd.io/bbolt":                 "doorward/authz/store/bolt",
		"go.yaml.in/yaml":                  "doorward/authz/config",
		"github.com/caddyserver/certmagic": "doorward/xds/cert/acme",
		"github.com/prometheus":            "doorward/cmd/doorward",
	}
	for _, p := range listPackages(t) {
		if strings.HasPrefix(p.ImportPath, "doorward/cmd/") {
			continue
		}
		for _, imported := range p.Imports {
			may, listed := allowed[p.ImportPath]
			if !listed {
				may = leaves
			}
			if strings.HasPrefix(imported, "doorward/") && !slices.Contains(may, imported) {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
			for library, owner := range owners {
				if strings.HasPrefix(imported, library) && p.ImportPath != owner {
					t.Errorf("%s imports %s, which only %s may", p.ImportPath, imported, owner)
				}
			}
		}
	}
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "doorward/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var p goPackage
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) < 15 {
		t.Fatalf("only %d packages were listed", len(packages))
	}
	return packages
}
