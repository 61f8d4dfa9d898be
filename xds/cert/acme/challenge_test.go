package acme

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"syscall"
	"testing"
)

// exhausted is a listener that has no file descriptor left at first.
type exhausted struct {
	net.Listener
	was bool
}

func (e *exhausted) Accept() (net.Conn, error) {
	if !e.was {
		e.was = true
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return e.Listener.Accept()
}

// TestChallengesOutliveExhaustion: what strangers can bring about does not end the program.
func TestChallengesOutliveExhaustion(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		err := new(Client).ServeTLS(ctx, &exhausted{Listener: l})
		l.Close()
		ended <- err
	}()
	_, err = tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "a.example.com", NextProtos: []string{tlsALPN}, InsecureSkipVerify: true})
	if err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("a challenge for nothing: %v, want the alert of a server that has no certificate", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
