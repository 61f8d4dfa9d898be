package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// stuck is a reader of the log that reads nothing until it is let go.
type stuck struct {
	free chan struct{}
	bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.free
	return s.Buffer.Write(p)
}

func TestLogNeverWaitsForItsReader(t *testing.T) {
	w := &stuck{free: make(chan struct{})}
	q := newLogQueue(w)
	const lines = 3 * logQueueSize
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range lines / 4 {
				fmt.Fprintf(q, "%d-%d\n", worker, i)
			}
		})
	}
	group.Wait() // hangs here if a line waits for its reader
	close(w.free)
	q.close()
	fmt.Fprintln(q, "late")
	text := w.String()
	written := strings.Count(text, "-")
	var dropped int
	if _, err := fmt.Sscanf(text[strings.Index(text, `"count":`):], `"count":%d}`, &dropped); err != nil {
		t.Fatal(err)
	}
	if written+dropped != lines || written < logQueueSize || strings.Contains(text, "late") {
		t.Errorf("%d lines written and %d counted as dropped, of %d", written, dropped, lines)
	}
}
