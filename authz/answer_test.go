package authz

import (
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// TestPermissions holds our encoding against the generated one, and the bytes that are prepared for a token against those that are made anew.
func TestPermissions(t *testing.T) {
	long := strings.Repeat("x", 5000)
	jwt := newMinted(option(nil, okHeaders, "x-assertion", long), nil, time.Time{})
	header := func(name, value string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD}
	}
	metadata, err := encodeMetadata(map[string]any{"team": "red"})
	if err != nil {
		t.Fatal(err)
	}
	object, err := structpb.NewStruct(map[string]any{"team": "red"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name     string
		p        permission
		ok       *authv3.OkHttpResponse
		metadata *structpb.Struct
		prepared bool
	}{
		{"nothing", permission{}, &authv3.OkHttpResponse{}, nil, false},
		{"identity", permission{jwt: jwt}, &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{header("x-assertion", long)}}, nil, false},
		{"identity, our cookie alone", permission{jwt: jwt, remove: []string{"cookie"}},
			&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{header("x-assertion", long)}, HeadersToRemove: []string{"cookie"}}, nil, true},
		{"identity, other cookies", permission{jwt: jwt, cookie: "a=b"},
			&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{header("x-assertion", long), header("cookie", "a=b")}}, nil, false},
		{"identity, another removal", permission{jwt: jwt, remove: []string{"x-a"}},
			&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{header("x-assertion", long)}, HeadersToRemove: []string{"x-a"}}, nil, false},
		{"identity, two removals", permission{jwt: jwt, remove: []string{"x-a", "cookie"}},
			&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{header("x-assertion", long)}, HeadersToRemove: []string{"x-a", "cookie"}}, nil, false},
		{"identity, a header", permission{jwt: jwt, set: map[string]string{"x-b": "", "x-a": "1"}, remove: []string{"cookie"}},
			&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{header("x-assertion", long), header("x-a", "1"), header("x-b", "")}, HeadersToRemove: []string{"cookie"}}, nil, false},
		{"identity, a response header", permission{jwt: jwt, responseSet: map[string]string{"x-a": long}, remove: []string{"cookie"}},
			&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{header("x-assertion", long)}, HeadersToRemove: []string{"cookie"}, ResponseHeadersToAdd: []*corev3.HeaderValueOption{header("x-a", long)}}, nil, false},
		{"identity, metadata", permission{jwt: jwt, metadata: metadata, remove: []string{"cookie"}},
			&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{header("x-assertion", long)}, HeadersToRemove: []string{"cookie"}}, object, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			want := &authv3.CheckResponse{Status: &statuspb.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: row.ok}, DynamicMetadata: row.metadata}
			for range 2 { // the first leaves shared bytes as they are
				got := new(authv3.CheckResponse)
				encoded := row.p.encode()
				if err := proto.Unmarshal(encoded, got); err != nil || !proto.Equal(got, want) {
					t.Fatalf("%v\ngot  %v\nwant %v", err, got, want)
				}
				if prepared := &encoded[0] == &jwt.answer[0]; prepared != row.prepared {
					t.Errorf("prepared: %v, want %v", prepared, row.prepared)
				}
			}
		})
	}
}
