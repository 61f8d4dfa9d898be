// Package stream ends the open streams of a session that has ended: WebSockets, event streams, long polls. Envoy asks Check about such a
// request once, when it begins; so that the answer does not outlive the session, Envoy also keeps one gRPC stream to this package open for
// as long as the request lives (envoy.service.ext_proc.v3.ExternalProcessor). When this side ends that stream with an error, Envoy ends the
// request.
//
// Whose request it is says a ticket that Check has put into Envoy's dynamic metadata, where no client can write. A request without one
// is refused. The package looks nowhere else: it sees neither cookies nor bodies, changes nothing of a request, and decides nothing but that
// what was decided holds no longer. A stream ends
//   - when its session is revoked or expires, or has not been used for as long as it may be (an open stream is no use),
//   - when the session's identity changes (a group taken away, say): the client connects again and is decided on anew,
//   - when the state of the session cannot be known for longer than ten seconds,
//   - and when Doorward stops.
//
// An open stream is not decided on anew when a policy or a route changes.
package stream

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"doorward/authz/session"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
)

// Where Check leaves the ticket: in the metadata that Envoy's ext_authz filter writes, under a name that no policy may use.
const (
	Namespace = "envoy.filters.http.ext_authz"
	Key       = "doorward"
	// Nobody stands in a ticket's place when the request has no session: nothing can end what nobody began.
	Nobody = "nobody"
)

const (
	// maxOpen bounds the streams of all sessions: below what Envoy's cluster for them takes.
	maxOpen = 60_000
	// retry is how long Run waits before it asks again about sessions that could not be watched or read.
	retry = time.Second
	// patience is how long streams stay open while nobody knows whether their sessions live.
	patience = 10 * time.Second
	// asking bounds one look into the store.
	asking = 5 * time.Second
)

// Sessions is what is known of the sign-ins. Live returns a session and when it ends unless something happens to it until then, or
// session.ErrNone for one that has ended; any other error says that it cannot be known. Watch reports the ids of sessions that may have changed, "" for any of them, and closes the channel when it can no longer tell.
type Sessions interface {
	OpenTicket(ticket string) (id string, version uint64, err error)
	Live(ctx context.Context, id string) (*session.Session, time.Time, error)
	Watch(ctx context.Context) (<-chan string, error)
}

// Config is what a Server needs. All fields but Now are required.
type Config struct {
	Sessions Sessions
	Limit    func() int // how many streams one session may have open
	Log      *slog.Logger
	Now      func() time.Time // time.Now when nil
}

// Server implements the service. It is safe for concurrent use. Run must be running for as long as it is used: without it nothing ends but by
// expiry.
type Server struct {
	Config

	mu     sync.Mutex          // guards what follows; never held while the store is asked
	held   map[string]*sitting // by the session's id: those with open streams
	open   int
	closed error // why no stream may begin; nil while they may
}

// sitting is one session with open streams.
type sitting struct {
	streams  map[*stream]struct{}
	version  uint64   // of the session, when it was last read; 0 before
	identity [32]byte // digest of what decisions depend on
	expiry   *time.Timer
}

// stream is one open request.
type stream struct {
	id  string     // of the session
	end chan error // holds the reason, once there is one
}

// The reasons for which a stream ends or does not begin.
var (
	errEnded    = errors.New("the session has ended")
	errChanged  = errors.New("the session's identity has changed: connect again")
	errUnknown  = errors.New("whether the session still lives cannot be known")
	errStopping = errors.New("doorward is stopping")
	errMany     = errors.New("the session has too many open streams")
	errFull     = errors.New("too many streams are open")
)

// New returns a Server without streams.
func New(c Config) (*Server, error) {
	if c.Sessions == nil || c.Limit == nil || c.Log == nil {
		return nil, errors.New("stream: Sessions, Limit and Log are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Server{Config: c, held: make(map[string]*sitting)}, nil
}

// Register adds the service to a gRPC server.
func (s *Server) Register(g *grpc.Server) {
	extprocv3.RegisterExternalProcessorServer(g, service{s: s})
}

// Open returns how many streams are watched.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// begin opens a stream for a ticket. It is in the index before the session is read, so that a session that ends meanwhile is seen by one or
// the other.
func (s *Server) begin(ctx context.Context, ticket string) (*stream, error) {
	id, version, err := s.Sessions.OpenTicket(ticket)
	if err != nil {
		return nil, err
	}
	st := &stream{id: id, end: make(chan error, 1)}
	if err := s.add(st); err != nil {
		return nil, err
	}
	live, err := s.confirm(ctx, id)
	switch {
	case err != nil:
	case live == nil:
		err = errEnded
	case live.Version != version:
		err = errChanged // since the request was decided
	}
	if err != nil {
		s.remove(st)
		return nil, err
	}
	return st, nil
}

func (s *Server) add(st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.held[st.id]
	switch {
	case s.closed != nil:
		return s.closed
	case s.open >= maxOpen:
		return errFull
	case at != nil && len(at.streams) >= s.Limit(), s.Limit() < 1:
		return errMany
	case at == nil:
		at = &sitting{streams: make(map[*stream]struct{})}
		s.held[st.id] = at
	}
	at.streams[st] = struct{}{}
	s.open++
	return nil
}

// remove takes a stream out of the index, if it still is in it.
func (s *Server) remove(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.held[st.id]
	if at == nil {
		return
	}
	if _, ok := at.streams[st]; !ok {
		return
	}
	delete(at.streams, st)
	s.open--
	if len(at.streams) == 0 {
		s.forget(st.id, at)
	}
}

// endAll ends every stream of a session.
func (s *Server) endAll(id string, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endStreams(id, reason)
}

// endStreams ends every stream of a session. The caller holds mu, as for the functions below it.
func (s *Server) endStreams(id string, reason error) {
	at := s.held[id]
	if at == nil {
		return
	}
	for st := range at.streams {
		st.end <- reason // has room: a stream is ended once, since it leaves the index
	}
	s.open -= len(at.streams)
	s.forget(id, at)
}

func (s *Server) forget(id string, at *sitting) {
	if at.expiry != nil {
		at.expiry.Stop()
	}
	delete(s.held, id)
}

// confirm reads a session, and ends its streams if it has ended or is another's by now. It returns nil without an error when it has ended.
func (s *Server) confirm(ctx context.Context, id string) (*session.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	live, end, err := s.Sessions.Live(ctx, id)
	if errors.Is(err, session.ErrNone) {
		s.endAll(id, errEnded)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnknown, err)
	}
	digest, err := identity(live)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnknown, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.held[id]
	switch {
	case at == nil || live.Version < at.version: // what was read before is newer
	case at.version != 0 && at.identity != digest:
		s.endStreams(id, errChanged)
	default:
		at.version, at.identity = live.Version, digest
		s.expireAt(id, at, end)
	}
	return live, nil
}

// identity is a digest of what a decision depends on, beside the request.
func identity(live *session.Session) ([32]byte, error) {
	text, err := json.Marshal([]any{live.User, live.AuthTime, live.AMR, live.ACR})
	return sha256.Sum256(text), err
}

// expireAt has the session looked at again when it ends. One that has been used, or given more time, goes on.
func (s *Server) expireAt(id string, at *sitting, end time.Time) {
	left := max(end.Sub(s.Now()), 0) + time.Millisecond
	if at.expiry != nil {
		at.expiry.Reset(left)
		return
	}
	at.expiry = time.AfterFunc(left, func() {
		if _, err := s.confirm(context.Background(), id); err != nil {
			s.endAll(id, errEnded)
		}
	})
}
