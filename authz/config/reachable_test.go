package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestMatchesAll(t *testing.T) {
	for expression, want := range map[string]bool{
		".*": true, "/.*": true, "^/.*$": true, "(/.*)": true, ".+": true, "^.*": true, "/(.*)": false, "/.+": false, "/a.*": false, ".*\\.js": false, "": false, "[": false,
	} {
		if got := matchesAll(expression); got != want {
			t.Errorf("%s: %v, want %v", expression, got, want)
		}
	}
}

func TestRoutesThatAreNeverReached(t *testing.T) {
	const one = `auth_url: https://a.localhost
routes:
  - {name: exact, from: "https://a.localhost", path: /x, to: "http://x", policy: public}
  - {name: early, from: "https://a.localhost", regex: "/e.*", to: "http://x", policy: public}
  - {name: all, from: "https://a.localhost", regex: "/.*", to: "http://x", policy: public}
  - {name: late, from: "https://a.localhost", regex: "/l.*", to: "http://x", policy: public}
  - {name: prefix, from: "https://a.localhost", prefix: /p, to: "http://x", policy: public}
  - {name: elsewhere, from: "https://b.localhost", prefix: /p, to: "http://x", policy: public}
`
	dir := write(t, map[string]string{"doorward.yaml": one})
	_, err := Load(filepath.Join(dir, "doorward.yaml"))
	want := strings.ReplaceAll(`DIR/doorward.yaml:6:5: routes[late]: is never reached: regex "/.*" of route "all" at DIR/doorward.yaml:5:5 matches every path before it; give that one a prefix in place of the regex
DIR/doorward.yaml:7:5: routes[prefix]: is never reached: regex "/.*" of route "all" at DIR/doorward.yaml:5:5 matches every path before it; give that one a prefix in place of the regex`, "DIR", dir)
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
}
