package store

import (
	"context"
	"errors"
	"iter"
	"time"
)

// pageSize is how many items All reads at a time.
const pageSize = 500

// All yields every item whose key starts with prefix, in the order of their keys. Items that are written or deleted meanwhile may be among them or
// not. An error is the last that it yields.
func All(ctx context.Context, s Store, prefix string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for after := ""; ; {
			items, err := s.List(ctx, prefix, after, pageSize)
			if err != nil {
				yield(Item{}, err)
				return
			}
			for _, item := range items {
				after = item.Key
				if !yield(item, nil) {
					return
				}
			}
			if len(items) < pageSize {
				return
			}
		}
	}
}

// retryWatch is how long Follow waits before it tries again to follow a store that could not be.
const retryWatch = 200 * time.Millisecond

// Follow calls follow, which returns when the store's changes can no longer be told, and calls it again after a moment, until ctx ends. Its error
// is ErrClosed, when follow has returned it.
func Follow(ctx context.Context, follow func(context.Context) error) error {
	for {
		err := follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrClosed) {
			return err
		}
		select {
		case <-time.After(retryWatch):
		case <-ctx.Done():
			return nil
		}
	}
}

// Names watches a prefix and reports what name makes of each key that changes, as Store.Watch reports the key; the empty key, after which
// everything may have changed, is given to name too.
func Names(ctx context.Context, s Store, prefix string, name func(key string) string) (<-chan string, error) {
	events, err := s.Watch(ctx, prefix)
	if err != nil {
		return nil, err
	}
	names := make(chan string)
	go func() {
		defer close(names)
		for event := range events {
			select {
			case names <- name(event.Key):
			case <-ctx.Done():
				return
			}
		}
	}()
	return names, nil
}
