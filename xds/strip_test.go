package xds

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// spellings are names that many applications take for the same one.
func spellings(name string) []string {
	name = strings.ToLower(name)
	return []string{
		name, strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."), strings.Replace(name, "-", "_", 1),
	}
}

func TestStripPattern(t *testing.T) {
	more := []string{
		"X-Identity_Token", "X-Forwarded-", "X-Forwarded-F", "X-Forwarded-Fo", "X-Forwarded-Forx", "X-Forwarded-P", "X-Forwarded-Prot",
		"X-Forwarded-Protocol", "X-Forwarded-Host", "X-Forwarded-Port", "X-Pomerium-Claim-", "X-User", "X-Email",
	}
	for _, hops := range []uint32{0, 1} {
		pattern := regexp.MustCompile("^(?:" + strings.Join(stripPatterns("X-Identity_Token", hops, []string{"x-acme-person"}), "|") + ")$")
		for _, name := range slices.Concat(forged, more) {
			for _, s := range spellings(name) {
				if !pattern.MatchString(s) {
					t.Errorf("trusted hops %d: %s is not stripped", hops, s)
				}
			}
		}
		for _, name := range append(wanted, "X-Identit", "X-Forwardedx", "Xx-Forwarded-User") {
			if pattern.MatchString(strings.ToLower(name)) {
				t.Errorf("trusted hops %d: %s is stripped", hops, name)
			}
		}
		for _, name := range []string{"x-forwarded-for", "x-forwarded-proto"} {
			for i, s := range spellings(name) {
				if want := hops == 0 || i > 0; pattern.MatchString(s) != want {
					t.Errorf("trusted hops %d: %s stripped is %v", hops, s, !want)
				}
			}
		}
	}
}
