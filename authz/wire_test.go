package authz

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// full is a question with every field that is read, and some that are not.
func full() *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{
			Principal: "spiffe://x",
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: "192.0.2.7", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 4711},
			}}},
		},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "1b4e28ba-2fa1-11d2-883f-0016d3cca427", Method: "GET", Path: "/d/x?a=1", Host: host + ":8443", Scheme: "https",
			Size: -1, Protocol: "HTTP/2",
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
				{Key: ":path", RawValue: []byte("/d/x?a=1")}, {Key: "cookie", RawValue: []byte("a=\xff")}, {Key: "accept", Value: "text/html"},
				{Key: "accept", RawValue: []byte("*/*")}, {Key: "empty"},
			}},
		}},
		TlsSession:        &authv3.AttributeContext_TLSSession{Sni: host},
		ContextExtensions: map[string]string{"route": "grafana", "revision": "0123456789abcdef", "other": "x", "body": "8192"},
	}}
}

func encode(t testing.TB, m proto.Message) string {
	t.Helper()
	text, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// same says whether a request has the values that the generated parser found.
func same(r *request, m *authv3.CheckRequest) bool {
	a := m.GetAttributes()
	h := a.GetRequest().GetHttp()
	var lines []header
	for _, v := range h.GetHeaderMap().GetHeaders() {
		if v.GetKey() == "" || v.GetKey()[0] == ':' {
			continue
		}
		value := v.GetValue()
		if len(v.GetRawValue()) > 0 {
			value = string(v.GetRawValue())
		}
		lines = append(lines, header{v.GetKey(), value})
	}
	return r.method == h.GetMethod() && r.target == h.GetPath() && r.authority == h.GetHost() && r.scheme == h.GetScheme() &&
		r.sni == a.GetTlsSession().GetSni() && r.clientIP == a.GetSource().GetAddress().GetSocketAddress().GetAddress() &&
		r.route == a.GetContextExtensions()["route"] && r.revision == a.GetContextExtensions()["revision"] &&
		r.bodyLimit == a.GetContextExtensions()["body"] &&
		r.mapped == (h.GetHeaderMap() != nil) && slices.Equal(r.headers, lines)
}

func TestWireHasTheGeneratedParsersValues(t *testing.T) {
	m := full()
	r := new(request)
	if err := wireCheckRequest(r, encode(t, m)); err != nil {
		t.Fatal(err)
	}
	if !same(r, m) || len(r.headers) != 4 {
		t.Errorf("read %+v of %v", r, m)
	}
}

func TestWireRefuses(t *testing.T) {
	text := encode(t, full())
	for name, question := range map[string]string{
		"a cut message":                 text[:len(text)-1],
		"text behind the message":       text + "\x00",
		"a second question behind":      text + text,
		"another path behind":           text + encode(t, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Path: "/other"}}}}),
		"another route behind":          text + encode(t, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{ContextExtensions: map[string]string{"route": "wiki"}}}),
		"a pipe in place of an address": text + encode(t, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/x"}}}}}}),
		"a path that is not UTF-8":      strings.Replace(text, "/d/x?a=1", "/d/x?a=\xff", 1),
		"a header name not in UTF-8":    strings.Replace(text, "accept", "accep\xff", 1),
		"a group":                       text + "\x0b\x0c",
		"a length without end":          text + "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"a length beyond the message":   text + "\x0a\x7f",
	} {
		if err := wireCheckRequest(new(request), question); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// FuzzWire holds the reader against the generated parser: the same values, or a denial.
func FuzzWire(f *testing.F) {
	f.Add([]byte(encode(f, full())))
	f.Add([]byte{})
	f.Add([]byte("\x0a\x02\x22\x00"))
	f.Fuzz(func(t *testing.T, question []byte) {
		r := new(request)
		if wireCheckRequest(r, string(question)) != nil {
			return
		}
		m := new(authv3.CheckRequest)
		if proto.Unmarshal(question, m) != nil {
			return // a fault in a part that is not read
		}
		if !same(r, m) {
			t.Errorf("read %+v of %v", r, m)
		}
	})
}

// FuzzAnswer holds that whatever a client, a user or a policy says, the answer is one that the generated parser reads with the same
// headers in it.
func FuzzAnswer(f *testing.F) {
	f.Add("x-team", "blue", "a=1", "x-webauth-user")
	f.Add("", "\xff", "\x00", "")
	f.Fuzz(func(t *testing.T, name, value, cookie, remove string) {
		p := &permission{set: map[string]string{strings.ToValidUTF8(name, ""): strings.ToValidUTF8(value, "")}, cookie: strings.ToValidUTF8(cookie, ""), remove: []string{strings.ToValidUTF8(remove, "")}}
		m := new(authv3.CheckResponse)
		if err := proto.Unmarshal(p.encode(), m); err != nil {
			t.Fatal(err)
		}
		for n, v := range maps.All(p.set) {
			if got := headerOf(m.GetOkResponse().GetHeaders(), n); n != "cookie" && got != v {
				t.Errorf("%q is %q, want %q", n, got, v)
			}
		}
		if got := m.GetOkResponse().GetHeadersToRemove(); !slices.Equal(got, p.remove) {
			t.Errorf("removed %q, want %q", got, p.remove)
		}
	})
}
