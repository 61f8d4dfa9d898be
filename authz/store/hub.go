package store

import (
	"context"
	"strings"
	"sync"
)

// pendingKeys bounds what one slow watcher can hold back. Past it, the watcher is told to read everything again.
const pendingKeys = 1024

// Hub hands the changed keys of a Store to its watchers. It is what implementations build Watch with. The zero Hub is ready; it is safe
// for concurrent use, and Publish never waits for a watcher.
type Hub struct {
	mu       sync.Mutex
	closed   bool
	watchers map[*watcher]struct{}
}

// Watch implements Store.Watch. One goroutine per watcher lives until ctx ends or the Hub is closed.
func (h *Hub) Watch(ctx context.Context, prefix string) (<-chan Event, error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := &watcher{
		prefix: prefix,
		out:    make(chan Event),
		wake:   make(chan struct{}, 1),
		end:    make(chan struct{}),
		keys:   map[string]struct{}{},
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	if h.watchers == nil {
		h.watchers = map[*watcher]struct{}{}
	}
	h.watchers[w] = struct{}{}
	go func() {
		defer close(w.out)
		w.deliver(ctx)
		h.mu.Lock()
		delete(h.watchers, w)
		h.mu.Unlock()
	}()
	return w.out, nil
}

// Publish reports that keys changed. It is called after the change is visible.
func (h *Hub) Publish(keys ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.add(keys)
	}
}

// Reset ends every Watch, for a store that can no longer tell its changes. New ones may be started at once.
func (h *Hub) Reset() { h.end(false) }

// Close ends every Watch and refuses new ones.
func (h *Hub) Close() { h.end(true) }

func (h *Hub) end(forGood bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = h.closed || forGood
	for w := range h.watchers {
		close(w.end)
		delete(h.watchers, w)
	}
}

// watcher holds the changes that its reader has not taken yet: each key once, in the order of their first change.
type watcher struct {
	prefix string
	out    chan Event
	wake   chan struct{} // has room for one: there is something to deliver
	end    chan struct{}

	mu       sync.Mutex
	order    []string
	keys     map[string]struct{}
	overflow bool
}

func (w *watcher) add(keys []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range keys {
		if w.overflow {
			break
		}
		if _, ok := w.keys[key]; ok || !strings.HasPrefix(key, w.prefix) {
			continue
		}
		if len(w.order) == pendingKeys {
			w.overflow, w.order = true, nil
			clear(w.keys)
			break
		}
		w.keys[key] = struct{}{}
		w.order = append(w.order, key)
	}
	if w.overflow || len(w.order) > 0 {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (w *watcher) next() (Event, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.overflow {
		w.overflow = false
		return Event{}, true
	}
	if len(w.order) == 0 {
		return Event{}, false
	}
	key := w.order[0]
	w.order = w.order[1:]
	delete(w.keys, key)
	return Event{Key: key}, true
}

func (w *watcher) deliver(ctx context.Context) {
	for {
		select {
		case <-w.wake:
		case <-w.end:
			return
		case <-ctx.Done():
			return
		}
		for {
			event, ok := w.next()
			if !ok {
				break
			}
			select {
			case w.out <- event:
			case <-w.end:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}
