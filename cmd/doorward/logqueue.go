package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// logQueueSize is how many lines wait for a reader of the log that is slow. At half a KiB a line it bounds the memory too.
const logQueueSize = 8192

// logQueue is a log's writer that never makes a request wait: lines go through a bounded queue, and what does not fit is dropped and
// counted. Safe for concurrent use.
type logQueue struct {
	lines   chan []byte
	dropped atomic.Int64
	done    chan struct{}

	mu     sync.RWMutex // guards closed: held for reading while a line enters the queue
	closed bool
}

// newLogQueue starts writing to w until close.
func newLogQueue(w io.Writer) *logQueue {
	q := &logQueue{lines: make(chan []byte, logQueueSize), done: make(chan struct{})}
	go func() {
		defer close(q.done)
		for line := range q.lines {
			_, _ = w.Write(line) // there is nowhere to report it
			if n := q.dropped.Swap(0); n > 0 {
				fmt.Fprintf(w, "{\"level\":\"WARN\",\"msg\":\"log lines dropped, because nobody read them in time\",\"count\":%d}\n", n)
			}
		}
	}()
	return q
}

// Write takes one line and never fails. slog reuses its buffer, so the line is copied.
func (q *logQueue) Write(line []byte) (int, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return len(line), nil
	}
	select {
	case q.lines <- append([]byte(nil), line...):
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

// close writes what waits and returns. Lines that come later are lost.
func (q *logQueue) close() {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.lines)
	}
	q.mu.Unlock()
	<-q.done
}
