package authz

import (
	"reflect"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// rich is a question with what only some policies read.
func rich() *authv3.CheckRequest {
	m := full()
	a := m.Attributes
	a.Source.Certificate, a.Source.Service, a.Source.Labels = "-----BEGIN", "edge", map[string]string{"zone": "b"}
	a.Destination = &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Protocol: corev3.SocketAddress_UDP, Address: "203.0.113.1", PortSpecifier: &corev3.SocketAddress_NamedPort{NamedPort: "https"}, Ipv4Compat: true,
	}}}}
	a.Request.Time = &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 5}
	a.Request.Http.Body = `{"a": 1}`
	a.Request.Http.RawBody = []byte{0, 0xff}
	a.MetadataContext = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		"jwt": {Fields: map[string]*structpb.Value{"n": structpb.NewNumberValue(1.5), "l": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewNullValue(), structpb.NewBoolValue(true)}})}},
	}}
	a.RouteMetadataContext = new(corev3.Metadata)
	return m
}

func TestAttributes(t *testing.T) {
	r := &request{question: encode(t, rich())}
	for name, want := range map[string]map[string]any{
		"source": {
			"principal": "spiffe://x", "certificate": "-----BEGIN", "service": "edge", "labels": map[string]any{"zone": "b"},
			"address": map[string]any{"socketAddress": map[string]any{"address": "192.0.2.7", "portValue": int64(4711)}},
		},
		"destination": {"address": map[string]any{"socketAddress": map[string]any{
			"protocol": int64(1), "address": "203.0.113.1", "namedPort": "https", "ipv4Compat": true,
		}}},
		"request": {
			"time": map[string]any{"seconds": int64(1_700_000_000), "nanos": int64(5)},
			"http": map[string]any{
				"id": "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "method": "GET", "path": "/d/x?a=1", "host": host + ":8443", "scheme": "https",
				"size": int64(-1), "protocol": "HTTP/2", "body": `{"a": 1}`, "rawBody": "AP8=",
			},
		},
		"contextExtensions":    {"route": "grafana", "revision": "0123456789abcdef", "other": "x", "body": "8192"},
		"metadataContext":      {"filterMetadata": map[string]any{"jwt": map[string]any{"n": 1.5, "l": []any{nil, true}}}},
		"routeMetadataContext": {},
		"tlsSession":           {"sni": host},
		"none":                 nil,
	} {
		if got, err := r.attribute(name); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %#v, %v; want %#v", name, got, err, want)
		}
	}
	empty := &request{question: encode(t, &authv3.CheckRequest{})}
	for name := range attributeNames {
		if got, err := empty.attribute(name); got != nil || err != nil {
			t.Errorf("of nothing, %s is %v, %v", name, got, err)
		}
	}
}

// attributeNames are the parts, each with how the generated parser has it.
var attributeNames = map[string]func(*authv3.AttributeContext) proto.Message{
	"source":               func(a *authv3.AttributeContext) proto.Message { return a.GetSource() },
	"destination":          func(a *authv3.AttributeContext) proto.Message { return a.GetDestination() },
	"request":              func(a *authv3.AttributeContext) proto.Message { return a.GetRequest() },
	"metadataContext":      func(a *authv3.AttributeContext) proto.Message { return a.GetMetadataContext() },
	"routeMetadataContext": func(a *authv3.AttributeContext) proto.Message { return a.GetRouteMetadataContext() },
	"tlsSession":           func(a *authv3.AttributeContext) proto.Message { return a.GetTlsSession() },
}

// FuzzAttributes holds that a part read by itself is the part of the whole question, or an error.
func FuzzAttributes(f *testing.F) {
	text := encode(f, rich())
	f.Add([]byte(text))
	f.Add([]byte(text + text))
	f.Add([]byte(text + encode(f, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Source: &authv3.AttributeContext_Peer{Principal: "other"}}})))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, question []byte) {
		m := new(authv3.CheckRequest)
		if proto.Unmarshal(question, m) != nil {
			return
		}
		if h := m.GetAttributes().GetRequest().GetHttp(); h != nil {
			h.Headers, h.HeaderMap = nil, nil
		}
		r := &request{question: string(question)}
		for name, of := range attributeNames {
			got, err := r.attribute(name)
			if err != nil {
				continue
			}
			var want map[string]any
			if part := of(m.GetAttributes()); part.ProtoReflect().IsValid() {
				want = plain(part.ProtoReflect())
			}
			if !equalPlain(got, want) {
				t.Errorf("%s is %#v, want %#v", name, got, want)
			}
		}
		got, err := r.attribute("contextExtensions")
		if want := m.GetAttributes().GetContextExtensions(); err == nil && len(got) != len(want) {
			t.Errorf("extensions are %v, want %v", got, want)
		}
		for name, value := range got {
			if m.GetAttributes().GetContextExtensions()[name] != value {
				t.Errorf("extension %q is %q", name, value)
			}
		}
	})
}

// equalPlain is equality in which a number that is none equals itself.
func equalPlain(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) || (x == nil) != (y == nil) {
			return false
		}
		for name := range x {
			if other, there := y[name]; !there || !equalPlain(x[name], other) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !equalPlain(x[i], y[i]) {
				return false
			}
		}
		return true
	case float64:
		y, ok := b.(float64)
		return ok && (x == y || x != x && y != y)
	}
	return reflect.DeepEqual(a, b)
}

// TestPartialBodies has Envoy's word corrected where it cannot know.
func TestPartialBodies(t *testing.T) {
	for _, row := range []struct {
		name, limit string
		body        string
		raw         []byte
		headers     map[string]string
		want        string // of the header; "" when it is not there
	}{
		{"no body is sent for the route", "", strings.Repeat("x", 20), nil, nil, ""},
		{"gRPC", "none", "", nil, nil, ""},
		{"a short body", "10", "xxx", nil, map[string]string{headerPartial: "false"}, "false"},
		{"one of the full length", "10", strings.Repeat("x", 10), nil, map[string]string{headerPartial: "false"}, "true"},
		{"packed as bytes", "10", "", make([]byte, 10), map[string]string{headerPartial: "false"}, "true"},
		{"longer than the limit", "10", strings.Repeat("x", 12), nil, nil, "true"},
		{"of the full length and no longer", "10", strings.Repeat("x", 10), nil, map[string]string{headerPartial: "false", "content-length": "10"}, "false"},
		{"of the full length, and more is announced", "10", strings.Repeat("x", 10), nil, map[string]string{headerPartial: "false", "content-length": "11"}, "true"},
		{"cut by Envoy", "10", strings.Repeat("x", 10), nil, map[string]string{headerPartial: "true", "content-length": "12"}, "true"},
	} {
		m := full()
		m.Attributes.Request.Http.Body, m.Attributes.Request.Http.RawBody = row.body, row.raw
		if m.Attributes.ContextExtensions["body"] = row.limit; row.limit == "" {
			delete(m.Attributes.ContextExtensions, "body")
		}
		for name, value := range row.headers {
			h := m.Attributes.Request.Http.HeaderMap
			h.Headers = append(h.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
		}
		r, err := parseRequest(encode(t, m))
		if got, _ := r.visible(headerPartial); err != nil || got != row.want {
			t.Errorf("%s: got %q, %v; want %q", row.name, got, err, row.want)
		}
	}
	m := full()
	m.Attributes.ContextExtensions["body"] = "much"
	if _, err := parseRequest(encode(t, m)); err == nil {
		t.Error("a limit that is no number was accepted")
	}
}
