package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestNothingBypassesCONNECTOverHTTP2 sends what no ordinary client would: header blocks as they stand.
func TestNothingBypassesCONNECTOverHTTP2(t *testing.T) {
	s, service := newServices(t)
	b := s.browser()
	b.signIn(s.url("db", "/"), "alice")
	type fields [][2]string
	plain := fields{{":method", "CONNECT"}, {":authority", "db.localhost:5432"}}
	open := fields{{":method", "CONNECT"}, {":authority", "open.localhost:7"}}
	for name, c := range map[string]struct {
		sni  string
		send fields
		want string
	}{
		"a stranger":                    {"db.localhost", plain, "401"},
		"the cookie of a page":          {"db.localhost", append(plain, [2]string{"cookie", b.cookie("db")}), "401"},
		"another server name":           {"grafana.localhost", plain, "421"},
		"no server name of ours":        {"grafana.localhost", fields{{":method", "CONNECT"}, {":authority", "evil.example:443"}}, "421"},
		"with a path":                   {"open.localhost", append(fields{{":scheme", "https"}, {":path", "/"}}, open...), "reset"},
		"with a path, to a page's host": {"grafana.localhost", fields{{":method", "CONNECT"}, {":authority", "grafana.localhost"}, {":scheme", "https"}, {":path", "/"}}, "reset"},
		"two authorities":               {"open.localhost", append(fields{{":authority", "evil.example:7"}}, open...), "reset"},
		"a WebSocket by CONNECT": {"db.localhost", fields{{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "https"}, {":path", "/"},
			{":authority", "db.localhost"}, {"cookie", b.cookie("db")}}, "reset"},
		"UDP by CONNECT": {"open.localhost", fields{{":method", "CONNECT"}, {":protocol", "connect-udp"}, {":scheme", "https"}, {":path", "/.well-known/masque/udp/127.0.0.1/53/"},
			{":authority", "open.localhost:7"}}, "reset"},
		"GET without a path": {"open.localhost", fields{{":method", "GET"}, {":scheme", "https"}, {":authority", "open.localhost"}}, "reset"},
	} {
		if got := s.frames(c.sni, c.send); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if n := s.envoyStats("cluster.tcp://" + service.Addr().String() + ".upstream_cx_total"); total(n) != 0 {
		t.Errorf("connections to the service: %v", n)
	}
	if got := s.frames("open.localhost", open); got != "200" {
		t.Errorf("the public service: %s, want 200", got)
	}
}

// frames sends one header block and returns the status of the answer, or "reset" when the stream or the connection ends without one.
func (s *stack) frames(sni string, fields [][2]string) string {
	s.t.Helper()
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port), &tls.Config{ServerName: sni, InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // a buffer takes everything
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err = io.WriteString(conn, http2.ClientPreface)
	if err == nil {
		err = framer.WriteSettings()
	}
	if err == nil {
		err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return "reset"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "reset"
		}
	}
}
