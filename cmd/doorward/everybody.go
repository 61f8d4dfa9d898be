package main

import (
	"context"
	"errors"
	"time"

	"doorward/authz/bearer"
	"doorward/authz/session"
)

// everybody is all sessions that may have open streams: those of people and those of bearer tokens. A ticket names either in the same way.
type everybody struct {
	*session.Sessions
	bearer *bearer.Finder
}

// Live implements stream.Sessions.
func (e everybody) Live(ctx context.Context, id string) (*session.Session, time.Time, error) {
	found, end, err := e.Sessions.Live(ctx, id)
	if errors.Is(err, session.ErrNone) {
		return e.bearer.Live(ctx, id)
	}
	return found, end, err
}

// Watch implements stream.Sessions. Its channel is closed as soon as one kind's changes can no longer be told.
func (e everybody) Watch(ctx context.Context) (<-chan string, error) {
	ctx, cancel := context.WithCancel(ctx)
	people, err := e.Sessions.Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	programs, err := e.bearer.Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	ids := make(chan string)
	go func() {
		defer close(ids)
		defer cancel()
		for {
			var id string
			var ok bool
			select {
			case id, ok = <-people:
			case id, ok = <-programs:
			}
			if !ok {
				return
			}
			select {
			case ids <- id:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ids, nil
}
