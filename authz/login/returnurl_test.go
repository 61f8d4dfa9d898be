package login

import (
	"net/url"
	"strings"
	"testing"
)

func TestReturnURL(t *testing.T) {
	same := []string{
		"/", "/d/x", "/d/x?a=1&b=%2F", "/a//b", "/a/../b", "/?", "/?//x", "/?a=b\\c", "/%20", "/a%09b", "/x/", "/.well-known/x", "/:8443/", "/@evil.example/",
		"/.pomerium/", "/.pomerium", "/.pomerium/return?attempt=0", "/.pomeriumx/sign_out", "/x/.pomerium/sign_out", "/?return=https://evil.example", "/javascript:alert(1)",
		"/a;b=c/d", "/..x", "/.", "/..", "/./", "/%2e/x",
	}
	for _, raw := range same {
		if got := returnURL(raw, prefix); got != raw {
			t.Errorf("%q: got %q, want the same", raw, got)
		}
	}
	home := []string{
		"", "x", "?", "#", "https://evil.example", "//evil.example", "///evil.example", `/\evil.example`, `\/evil.example`, `\\evil.example`, "/\t/evil.example", "/%09/../%zz",
		"/\n/evil.example", "/\r\nSet-Cookie: x", "/\x00", "/ /evil.example", " /x", "\t/x", "/x ", "/x\x7f", "/.//evil.example", "/..//evil.example", "/./..//evil.example",
		"/%2e//evil.example", "/%2E%2e//evil.example", "/%2f/evil.example", "/%5c/evil.example", "/.\\/evil.example", "/a/../..//evil.example", "/a/b/%2e%2E/..//evil.example", "/;/..//x", `/a\b`, "/a#b", "/%zz", "//", "///", "/.//",
		"/.pomerium/sign_out", "/.pomerium/sign_in?return=%2F", "/.pomerium/callback", "/.pomerium/redeem?code=x", "/.pomerium/signed_out", "/.pomerium//sign_out", "/.pomerium//../sign_out", "/.pomerium/;/../sign_out",
		"/.pomerium/./sign_out", "/x/../.pomerium/sign_out", "/%2epomerium/sign_out", "/.pomerium%2Fsign_out", "/.pomerium/sign_out;x", "/.pomerium;x/sign_out",
		"/.pomerium/sign_out/", "/.pomerium/return/../sign_out", "javascript:alert(1)", "data:,x", "http:/x", "/.pomerium/anything",
	}
	for _, raw := range home {
		if got := returnURL(raw, prefix); got != "/" {
			t.Errorf("%q: got %q, want /", raw, got)
		}
	}
	for raw, want := range map[string]string{"/ü?ü": "/%C3%BC?%C3%BC", "/\xff": "/%FF", "/\u2028/evil": "/%E2%80%A8/evil", "/\u00a0": "/%C2%A0"} {
		if got := returnURL(raw, prefix); got != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
}

// resolve reads a reference as a browser does, at https://grafana.example.com: a small model of the WHATWG URL Standard's parser (sections
// 4.4 and 4.5), for references that begin with a slash or a backslash. It returns the host, and the path without dot segments.
func resolve(reference string) (host, path string) {
	reference = strings.TrimFunc(reference, func(r rune) bool { return r <= ' ' })
	reference = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(reference)
	reference, _, _ = strings.Cut(reference, "#")
	reference, _, _ = strings.Cut(reference, "?")
	reference = strings.ReplaceAll(reference, `\`, "/")
	if strings.HasPrefix(reference, "//") {
		host, rest, _ := strings.Cut(strings.TrimLeft(reference, "/"), "/")
		return host[strings.LastIndexByte(host, '@')+1:], "/" + rest
	}
	if !strings.HasPrefix(reference, "/") {
		return "", ""
	}
	var out []string
	segments := strings.Split(reference[1:], "/")
	for i, s := range segments {
		switch dots := strings.ReplaceAll(strings.ToLower(s), "%2e", "."); {
		case dots == "..":
			out = out[:max(0, len(out)-1)]
			fallthrough
		case dots == ".":
			if i == len(segments)-1 {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "grafana.example.com", "/" + strings.Join(out, "/")
}

// FuzzReturn holds what returnURL promises.
func FuzzReturn(f *testing.F) {
	for _, seed := range []string{
		"/d/x?a=1", "//evil.example", `/\evil.example`, "/\t/evil.example", "/.//evil.example", "/%2e//evil", "https://u:p@evil.example/", "/a/b/../../..//evil",
		"/.pomerium/sign_out", "/x/../.pomerium/sign_in", "/%2epomerium/callback", "/;/..//x", "/?\\", "/ü",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got := returnURL(raw, prefix)
		host, path := resolve(got)
		if host != "grafana.example.com" || strings.HasPrefix(path, "//") {
			t.Fatalf("%q became %q, which a browser reads as %s%s", raw, got, host, path)
		}
		for i := range len(got) {
			if got[i] <= ' ' || got[i] >= 0x7f {
				t.Fatalf("%q became %q", raw, got)
			}
		}
		u, err := url.Parse(got)
		if err != nil || u.Host != "" || u.Scheme != "" || u.User != nil || u.Fragment != "" {
			t.Fatalf("%q became %q: %v", raw, got, err)
		}
		if again := returnURL(got, prefix); again != got {
			t.Fatalf("%q became %q, and that %q", raw, got, again)
		}
		decoded, err := url.PathUnescape(path)
		if err != nil {
			t.Fatalf("%q became %q: %v", raw, got, err)
		}
		rest, below := strings.CutPrefix(decoded, prefix+"/")
		if rest, _, _ = strings.Cut(rest, ";"); below && rest != "" && rest != "return" {
			t.Fatalf("%q became %q, a path of ours", raw, got)
		}
	})
}

// FuzzTarget looks for a way out of the hosts that we have.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"/x", wiki, wiki + "/x?y", wiki + "@evil.example", wiki + ".evil.example/", wiki + ":8443/", wiki + `\@evil.example`, grafana + "//x", "//evil.example"} {
		f.Add(seed)
	}
	w := newSettings(f)
	f.Fuzz(func(t *testing.T, raw string) {
		v := &visit{Settings: w, host: "grafana.example.com"}
		to := v.target(raw)
		if to == "" {
			return
		}
		u, err := url.Parse(to)
		if err != nil || u.Scheme != "https" || u.Host != "grafana.example.com" && u.Host != "wiki.example.com" && u.Host != authHost || u.User != nil || !strings.HasPrefix(u.Path, "/") {
			t.Fatalf("%q became %q: %v", raw, to, err)
		}
	})
}
