package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzLoad: no text makes Load panic, and what it takes decides without a panic too.
func FuzzLoad(f *testing.F) {
	for _, folder := range []string{"doorward", "examples"} {
		files, err := filepath.Glob(filepath.Join(policiesFolder, folder, "*.rego"))
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(strings.Replace(string(text), "package doorward.", "package ", 1))
		}
	}
	for _, rego := range endless {
		f.Add("package p\n" + rego)
	}
	f.Fuzz(func(t *testing.T, text string) {
		set, problems := load(t.Context(), corpusOf(t, map[string]any{"users": map[string]any{"a": "b"}}, source{file: "p.rego", text: text}), 10*time.Millisecond)
		for _, p := range problems {
			if p.Message == "" || strings.Contains(p.Message, "cannot be compiled") {
				t.Errorf("%+v", p)
			}
		}
		if len(problems) > 0 {
			return
		}
		for _, name := range set.Names() {
			p, err := set.Policy(name)
			if err != nil {
				t.Fatal(err)
			}
			if d := p.Decide(t.Context(), alice()); d.Err != nil && (d.Allow || strings.Contains(d.Err.Error(), "panicked")) {
				t.Errorf("%+v", d)
			}
		}
	})
}

// FuzzDecide: whatever a request holds, the decision of a policy that reads all of it is the cached one, and says what the policy may say.
func FuzzDecide(f *testing.F) {
	set, problems := loadSource(f, `package p
		import data.doorward.request
		import data.doorward.user
		allow if request.under("/a")
		allow if user.email_in(["example.com"])
		allow if request.client_in(["10.0.0.0/8"])
		allow if input.request.headers.x == input.request.query.x[0]
		deny contains input.request.headers.x
		headers := {"x-out": input.request.headers.x, "x-groups": input.user.groups}
		response_headers := {input.request.headers.name: "x"}
		claims := {input.request.headers.x: input.request}`)
	if len(problems) > 0 {
		f.Fatal(report(problems))
	}
	p, err := set.Policy("p")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("/a/b", "x=1&y", "1", "x-name", "alice@example.com", "group", "10.1.2.3")
	f.Add("/%zz", "x=%zz;", "\r\n", "host", "a@b@c", "a,b", "::1")
	f.Add("//;;", "&&", "\xff\x00", ":", "", "", "")
	f.Fuzz(func(t *testing.T, path, query, x, name, email, group, ip string) {
		in := withHeaders(alice(), map[string]string{"x": x, "name": name})
		in.Request.Path, in.Request.Query, in.Request.ClientIP = path, query, ip
		in.User.Email, in.User.Groups = email, []string{group}
		c := NewCache(16, 1<<20)
		d := c.Decide(t.Context(), p, in)
		if again := c.Decide(t.Context(), p, in); differs(d, again) {
			t.Errorf("got %+v, and then %+v", d, again)
		}
		if d.Err != nil && (d.Allow || d.Headers != nil || strings.Contains(d.Err.Error(), "panicked")) {
			t.Errorf("an error comes with %+v", d)
		}
		for _, headers := range []map[string]string{d.Headers, d.ResponseHeaders} {
			for name, value := range headers {
				if checkHeader(name, value) != nil || checkReserved(strings.ReplaceAll(name, "_", "-")) != nil {
					t.Errorf("%q: %q is passed on", name, value)
				}
			}
		}
		for _, reason := range d.Reasons {
			if len(reason) > maxReason || strings.ContainsAny(reason, "\r\n\x00") {
				t.Errorf("%q is a reason", reason)
			}
		}
	})
}

// FuzzParsed: whatever a client sends as path, body and certificate, the parts that are made of it are made or refused, and the cache does not
// take one request for another.
func FuzzParsed(f *testing.F) {
	p := compilePackage(f, `allow if {
			input.parsed_path
			input.parsed_query
			not input.truncated_body
		}
		claims := {"body": input.parsed_body, "headers": input.attributes.request.http.headers}
		deny contains input.client_certificate.subject`)
	f.Add("/a%2Fb?x=1", "application/json", `{"a": [1e3, null]}`, "", "%2D")
	f.Add("/", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--x--", "9", "")
	f.Add("/%zz", "application/x-www-form-urlencoded", "a=%zz&;", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	f.Fuzz(func(t *testing.T, target, kind, body, length, certificate string) {
		c := NewCache(16, 1<<20)
		for _, body := range []string{body, body + " "} {
			in := withHeaders(alice(), map[string]string{headerContentType: kind, headerContentLength: length})
			in.Request.Target = target
			in.Request.Attribute = func(name string) (map[string]any, error) {
				return map[string]map[string]any{"request": {"http": map[string]any{"body": body}}, "source": {"certificate": certificate}}[name], nil
			}
			want := p.Decide(t.Context(), in)
			if got := c.Decide(t.Context(), p, in); differs(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if want.Err != nil && (want.Allow || strings.Contains(want.Err.Error(), "panicked")) {
				t.Errorf("an error comes with %+v", want)
			}
		}
	})
}
