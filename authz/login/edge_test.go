package login

import (
	"net/http"
	"strings"
	"testing"
)

func TestNavigation(t *testing.T) {
	w := newWorld(t)
	h := func(pairs ...string) http.Header {
		header := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			header.Add(pairs[i], pairs[i+1])
		}
		return header
	}
	for name, c := range map[string]struct {
		header http.Header
		status int
	}{
		"no Fetch Metadata":         {h(), 302},
		"a navigation":              {h("Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"), 200},
		"a frame":                   {h("Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"), 401},
		"an image":                  {h("Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"), 401},
		"a script":                  {h("Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"), 401},
		"a mode alone":              {h("Sec-Fetch-Mode", "navigate"), 401},
		"a destination alone":       {h("Sec-Fetch-Dest", "document"), 401},
		"two modes":                 {h("Sec-Fetch-Mode", "navigate", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "document"), 401},
		"a prefetch":                {h("Sec-Purpose", "prefetch"), 401},
		"a prerender":               {h("Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Purpose", "prefetch;prerender"), 401},
		"a navigation, other case":  {h("sec-fetch-mode", "navigate", "sec-fetch-dest", "document"), 200},
		"a navigation, odd spelled": {h("Sec-Fetch-Mode", "NAVIGATE", "Sec-Fetch-Dest", "document"), 401},
	} {
		a := w.call("GET", "grafana.example.com", prefix+"/sign_in?return=%2F", c.header)
		if a.StatusCode != c.status {
			t.Errorf("%s: got %d, want %d", name, a.StatusCode, c.status)
		}
		if a.StatusCode != 302 && len(a.Cookies()) > 0 {
			t.Errorf("%s: an attempt was begun: %q", name, a.Header["Set-Cookie"])
		}
	}
}

func TestHosts(t *testing.T) {
	w := newWorld(t)
	w.host("port.example.com", w.url("https://port.example.com:8443"))
	const misdirected = "Wrong host\nThis connection was made for another host.\nOpen the address again.\nStatus 421 Request id " + envoyID
	for name, c := range map[string]struct {
		host, sni string
		status    int
	}{
		"the same":          {"grafana.example.com", "grafana.example.com", 302},
		"with a port":       {"grafana.example.com:443", "grafana.example.com", 302},
		"mixed case":        {"Grafana.Example.com", "grafana.example.com", 302},
		"another":           {"grafana.example.com", "wiki.example.com", 421},
		"no server name":    {"grafana.example.com", "", 421},
		"a host not ours":   {"evil.example.com", "evil.example.com", 421},
		"nothing at all":    {"", "", 421},
		"a port in between": {"grafana.example.com:443@evil.example", "grafana.example.com", 421},
		"a trailing dot":    {"grafana.example.com.", "grafana.example.com", 421},
		"an address":        {"[::1]:443", "::1", 421},
	} {
		a := w.call("GET", c.host, prefix+"/", http.Header{"X-Doorward-Sni": {c.sni}})
		if a.StatusCode != c.status || c.status == 421 && a.text() != misdirected {
			t.Errorf("%s: got %d, want %d\n%s", name, a.StatusCode, c.status, a.text())
		}
	}
	for name, sni := range map[string][]string{"no header": nil, "two headers": {"grafana.example.com", "grafana.example.com"}} {
		if a := w.call("GET", "grafana.example.com", prefix+"/", http.Header{"X-Doorward-Sni": sni}); a.StatusCode != 421 {
			t.Errorf("%s: got %d, want 421", name, a.StatusCode)
		}
	}
	if got := w.call("GET", "port.example.com:8443", prefix+"/", nil).Header.Get("Location"); got != "https://port.example.com:8443/.pomerium/sign_in?return=%2F.pomerium%2F" {
		t.Errorf("redirected to %s", got)
	}
}

func TestPaths(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		method, host, path string
		status             int
		title              string
	}{
		{"GET", authHost, "/.pomerium/nothing", 404, "Page not found"},
		{"GET", authHost, "/.pomerium/sign_in/", 404, "Page not found"},
		{"GET", authHost, "/.pomerium/sign_out;x", 404, "Page not found"},
		{"GET", authHost, "/.pomeriumsign_in", 404, "Page not found"},
		{"GET", authHost, "/elsewhere", 404, "Page not found"},
		{"GET", "wiki.example.com", "/.pomerium/callback", 404, "Page not found"},
		{"POST", authHost, "/.pomerium/callback", 405, "Method not allowed"},
		{"POST", authHost, "/.pomerium/sign_in", 405, "Method not allowed"},
		{"HEAD", authHost, "/.pomerium/sign_in", 405, ""},
		{"PUT", authHost, "/.pomerium/sign_out", 405, "Method not allowed"},
		{"DELETE", authHost, "/.pomerium/", 405, "Method not allowed"},
	} {
		a := w.call(c.method, c.host, c.path, nil)
		if title, _, _ := strings.Cut(a.text(), "\n"); a.StatusCode != c.status || c.method != "HEAD" && title != c.title {
			t.Errorf("%s %s%s: got %d %s, want %d %s", c.method, c.host, c.path, a.StatusCode, title, c.status, c.title)
		}
		if c.status == 405 && a.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
}

func TestNew(t *testing.T) {
	if _, err := New(Config{Settings: func() Settings { return Settings{} }}); err == nil ||
		err.Error() != "login: Settings, Sessions, Store, Sealer, Pages and Log are required" {
		t.Errorf("got %v", err)
	}
}
