package stream

import (
	"context"
	"time"
)

// Run ends streams as sessions change, until ctx ends; then it ends all of them, and no more can begin. While sessions cannot be watched, it
// asks about each that has open streams every second.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	known := s.Now()
	for ctx.Err() == nil {
		if s.follow(ctx) {
			known = s.Now()
		}
		if s.Now().Sub(known) > patience {
			for _, id := range s.ids() {
				s.endAll(id, errUnknown)
			}
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
		}
	}
	return nil
}

// follow looks at sessions as they change, for as long as that can be done. It returns whether, at some time, the state of each was known.
func (s *Server) follow(ctx context.Context) (known bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed, unwatched := s.Sessions.Watch(ctx)
	if !s.confirmAll(ctx) {
		return false
	}
	if unwatched != nil {
		return true
	}
	for id := range changed {
		if id == "" && !s.confirmAll(ctx) {
			return true
		}
		if s.holds(id) {
			if _, err := s.confirm(ctx, id); err != nil {
				return true
			}
		}
	}
	return true
}

// confirmAll looks at every session that has open streams. It is false when one of them could not be read.
func (s *Server) confirmAll(ctx context.Context) bool {
	for _, id := range s.ids() {
		if _, err := s.confirm(ctx, id); err != nil {
			if ctx.Err() == nil {
				s.Log.Error("sessions with open streams cannot be read", "cause", err)
			}
			return false
		}
	}
	return true
}

func (s *Server) holds(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[id] != nil
}

func (s *Server) ids() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]string, 0, len(s.held))
	for id := range s.held {
		ids = append(ids, id)
	}
	return ids
}

// close ends all streams and lets none begin.
func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = errStopping
	for id := range s.held {
		s.endStreams(id, errStopping)
	}
}
