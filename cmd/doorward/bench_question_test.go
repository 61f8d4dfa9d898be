package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"doorward/authz/session"
	"doorward/xds"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// benchHost gets its certificate from the local CA.
const benchHost = "grafana.localhost"

// navigation is what a desktop browser (Chromium 156) sends with a click on a link: 18 headers, the pseudo-headers among them.
func navigation(path, cookie string) [][2]string {
	return [][2]string{
		{":method", "GET"}, {":authority", benchHost}, {":scheme", "https"}, {":path", path},
		{"sec-ch-ua", `"Chromium";v="156", "Not;A=Brand";v="8", "Google Chrome";v="156"`}, {"sec-ch-ua-mobile", "?0"},
		{"sec-ch-ua-platform", `"Linux"`}, {"upgrade-insecure-requests", "1"},
		{"user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"},
		{"accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"},
		{"sec-fetch-site", "same-origin"}, {"sec-fetch-mode", "navigate"}, {"sec-fetch-user", "?1"}, {"sec-fetch-dest", "document"},
		{"accept-encoding", "gzip, deflate, br, zstd"}, {"accept-language", "en-GB,en;q=0.9,de;q=0.8"},
		{"cookie", session.CookieName + "=" + cookie}, {"priority", "u=0, i"},
	}
}

// byEnvoy is what Envoy adds before it asks.
var byEnvoy = [][2]string{
	{"x-forwarded-for", "192.0.2.7"}, {"x-forwarded-proto", "https"}, {"x-envoy-external-address", "192.0.2.7"},
	{"x-request-id", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"},
}

// withCheck is the context of a call as Envoy makes it.
func withCheck(c *benchReady) (context.Context, context.CancelFunc) {
	pairs := []string{"x-envoy-internal", "true", "x-forwarded-for", "192.0.2.1", "x-envoy-expected-rq-timeout-ms", "1000"}
	if c.Set != "" {
		pairs = append(pairs, xds.MetadataHeaders, c.Set)
	}
	return context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), pairs...), time.Second)
}

// benchPath is the path of the i-th request: 50 of them, or with distinct as many as there are requests.
func benchPath(i int, distinct bool) string {
	if !distinct {
		i %= 50
	}
	return fmt.Sprintf("/d/%08d/home?orgId=1&refresh=5s", i)
}

// question is what Envoy 1.40 asks about a navigation, field by field: with a stock ext_authz filter, or with the one that a child's
// configuration makes.
func question(b testing.TB, as string, c *benchReady, path, cookie string) []byte {
	b.Helper()
	peer := func(ip string, port uint32) *authv3.AttributeContext_Peer {
		return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
		}}}}
	}
	destination := peer("192.0.2.1", 8443)
	destination.Principal = benchHost
	http := &authv3.AttributeContext_HttpRequest{
		Id: "12345678901234567890", Method: "GET", Host: benchHost, Path: path, Scheme: "https", Protocol: "HTTP/2",
	}
	attributes := &authv3.AttributeContext{
		Source: peer("192.0.2.7", 40000), Destination: destination,
		Request:         &authv3.AttributeContext_Request{Time: timestamppb.New(time.Unix(1800000000, 123456789)), Http: http},
		MetadataContext: &corev3.Metadata{}, RouteMetadataContext: &corev3.Metadata{},
		ContextExtensions: map[string]string{"route": "bench", "revision": c.Revision},
	}
	headers := append(navigation(path, cookie), byEnvoy...)
	if as == noopDirect {
		http.Headers = make(map[string]string, len(headers))
		for _, h := range headers {
			http.Headers[h[0]] = h[1]
		}
	} else {
		http.HeaderMap = new(corev3.HeaderMap)
		for _, h := range headers {
			if slices.Contains(c.Headers, h[0]) {
				http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])})
			}
		}
		attributes.TlsSession = &authv3.AttributeContext_TLSSession{Sni: benchHost}
	}
	text, err := proto.Marshal(&authv3.CheckRequest{Attributes: attributes})
	if err != nil {
		b.Fatal(err)
	}
	return text
}
