package stream

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/session"
	"doorward/authz/store/bolt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// edge is an Envoy's end of the service, with real sessions behind it.
type edge struct {
	t        *testing.T
	server   *Server
	sessions *session.Sessions
	client   extprocv3.ExternalProcessorClient
	log      *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newEdge(t *testing.T) *edge {
	t.Helper()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := session.OpenSealer(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{t: t, log: new(lockedBuffer)}
	if e.sessions, err = session.New(session.Config{Store: db, Sealer: sealer}); err != nil {
		t.Fatal(err)
	}
	e.server, err = New(Config{Sessions: e.sessions, Limit: func() int { return 3 }, Log: slog.New(slog.NewTextHandler(e.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	e.server.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = g.Serve(l) })
	running.Go(func() { _ = e.server.Run(ctx) })
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	e.client = extprocv3.NewExternalProcessorClient(conn)
	t.Cleanup(func() {
		_ = conn.Close()
		cancel()
		g.Stop()
		running.Wait()
		_ = db.Close()
	})
	return e
}

func (e *edge) signedIn() *session.Session {
	e.t.Helper()
	s, err := e.sessions.Create(e.t.Context(), session.Session{
		Issuer: "https://idp.example.com", Subject: "alice", User: session.User{ID: "alice", Groups: []string{"staff"}}, Expires: time.Now().Add(time.Hour),
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return s
}

// headers is the first message of a request. A nil ticket leaves the metadata out.
func headers(ticket any) *extprocv3.ProcessingRequest {
	in := &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestHeaders{RequestHeaders: &extprocv3.HttpHeaders{
		Headers: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "x-request-id", RawValue: []byte("request-1")}}},
	}}}
	if ticket != nil {
		v, err := structpb.NewStruct(map[string]any{Key: ticket, "a policy's": "own"})
		if err != nil {
			panic(err)
		}
		in.MetadataContext = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{Namespace: v}}
	}
	return in
}

// ask opens a stream and returns it with the answer to its first message.
func (e *edge) ask(first *extprocv3.ProcessingRequest) (extprocv3.ExternalProcessor_ProcessClient, *extprocv3.ProcessingResponse, error) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	e.t.Cleanup(cancel)
	g, err := e.client.Process(ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	if err := g.Send(first); err != nil {
		e.t.Fatal(err)
	}
	answer, err := g.Recv()
	return g, answer, err
}

func (e *edge) opened(s *session.Session) extprocv3.ExternalProcessor_ProcessClient {
	e.t.Helper()
	g, answer, err := e.ask(headers(e.sessions.Ticket(s)))
	if err != nil || answer.GetRequestHeaders() == nil || answer.GetRequestHeaders().GetResponse() != nil {
		e.t.Fatalf("got %v %v, want to go on with the request as it is", answer, err)
	}
	return g
}

func TestAStreamEndsWithItsSession(t *testing.T) {
	e := newEdge(t)
	s, other := e.signedIn(), e.signedIn()
	g, kept := e.opened(s), e.opened(other)
	if err := e.sessions.Revoke(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Recv(); status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "the session has ended") {
		t.Errorf("the stream ended with %v, want an error that says that the session has ended", err)
	}
	if log := e.log.String(); !strings.Contains(log, `msg="stream ended" id=request-1 session=`+session.HashID(s.ID)) || strings.Contains(log, s.ID) {
		t.Errorf("the log is %s", log)
	}
	if n := e.server.Open(); n != 1 {
		t.Errorf("%d streams are open, want the other session's", n)
	}
	if err := kept.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Recv(); err != io.EOF {
		t.Errorf("the other ended with %v, want io.EOF when its request does", err)
	}
	for deadline := time.Now().Add(5 * time.Second); e.server.Open() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a request that has ended is still watched")
		}
	}
}

func TestAStreamEndsWhenAGroupIsTakenAway(t *testing.T) {
	e := newEdge(t)
	s := e.signedIn()
	g := e.opened(s)
	update := func(groups ...string) *session.Session {
		t.Helper()
		next, err := e.sessions.Update(t.Context(), s.ID, func(s *session.Session) error {
			s.User.Groups, s.Tokens.Refresh = groups, s.Tokens.Refresh+"+"
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	update("staff") // as it was, with new tokens
	next := update()
	if _, err := g.Recv(); status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "the session's identity has changed") {
		t.Errorf("the stream ended with %v, want an error that says that the identity has changed", err)
	}
	if log := e.log.String(); strings.Count(log, "stream ended") != 1 {
		t.Errorf("the log is %s", log)
	}
	if _, answer, err := e.ask(headers(e.sessions.Ticket(s))); err != nil || answer.GetImmediateResponse().GetStatus().GetCode() != 503 {
		t.Errorf("a request that was decided before the change: %v %v, want status 503", answer, err)
	}
	e.opened(next)
}

func TestTrailersAreLetThrough(t *testing.T) {
	e := newEdge(t)
	g := e.opened(e.signedIn())
	if err := g.Send(&extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseTrailers{ResponseTrailers: &extprocv3.HttpTrailers{}}}); err != nil {
		t.Fatal(err)
	}
	if answer, err := g.Recv(); err != nil || answer.GetResponseTrailers() == nil || answer.GetResponseTrailers().GetHeaderMutation() != nil {
		t.Errorf("got %v %v, want to go on with the trailers as they are", answer, err)
	}
	if _, err := g.Recv(); err != io.EOF {
		t.Errorf("then %v, want io.EOF", err)
	}
}

func TestNobodyIsNotWatched(t *testing.T) {
	e := newEdge(t)
	g, answer, err := e.ask(headers(Nobody))
	if err != nil || answer.GetRequestHeaders() == nil {
		t.Fatalf("got %v %v, want to go on", answer, err)
	}
	if _, err := g.Recv(); err != io.EOF {
		t.Errorf("then %v, want io.EOF: an error would end the request", err)
	}
	if e.server.Open() != 0 {
		t.Error("it is watched")
	}
}

func TestWhoIsNotKnownIsRefused(t *testing.T) {
	e := newEdge(t)
	s, ended := e.signedIn(), e.signedIn()
	if err := e.sessions.Revoke(t.Context(), ended.ID); err != nil {
		t.Fatal(err)
	}
	full := e.signedIn()
	for range 3 {
		e.opened(full)
	}
	for what, row := range map[string]struct {
		first  *extprocv3.ProcessingRequest
		status int
	}{
		"no metadata":                {headers(nil), 503},
		"an empty ticket":            {headers(""), 503},
		"the session's id":           {headers(s.ID), 503},
		"a ticket of another type":   {headers([]any{e.sessions.Ticket(s)}), 503},
		"a ticket that was changed":  {headers(e.sessions.Ticket(s)[1:]), 503},
		"an ended session":           {headers(e.sessions.Ticket(ended)), 401},
		"a session with many opened": {headers(e.sessions.Ticket(full)), 429},
	} {
		g, answer, err := e.ask(row.first)
		if err != nil || int(answer.GetImmediateResponse().GetStatus().GetCode()) != row.status {
			t.Errorf("%s: got %v %v, want status %d", what, answer, err, row.status)
			continue
		}
		if _, err := g.Recv(); err != io.EOF {
			t.Errorf("%s: then %v, want io.EOF", what, err)
		}
	}
	body := &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestBody{RequestBody: &extprocv3.HttpBody{}}}
	if _, _, err := e.ask(body); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a body first: %v, want an error", err)
	}
	g := e.opened(s)
	if err := g.Send(body); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a body later: %v, want an error", err)
	}
}
