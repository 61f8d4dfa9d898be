package decision

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"doorward/authz/config"
)

const (
	// queueSize is how many events wait to be made into records. At 20,000 requests a second it is 400 ms of them.
	queueSize = 8192
	// gather is how long events are gathered before they are written, so that waking the writer costs nothing per request.
	gather = 20 * time.Millisecond
)

// Config is what a Log needs.
type Config struct {
	Settings config.DecisionLog
	Log      *slog.Logger // says when decisions cannot be logged
	Stdout   io.Writer    // os.Stdout when nil
	Stderr   io.Writer    // os.Stderr when nil
}

// Log writes records and hands them to subscribers. Safe for concurrent use.
type Log struct {
	Config
	key     []byte // of masks; made anew at each start
	counts  counts
	wanted  atomic.Bool // somebody wants events: a sink or a subscriber
	current atomic.Pointer[Target]
	next    chan *Target
	wake    chan struct{} // the queue is no longer empty
	half    chan struct{} // the queue is half full
	stop    chan struct{}
	done    chan struct{}
	once    sync.Once

	mu            sync.Mutex // guards queue and spare
	queue, spare  []Event
	subscriptions subscriptions
}

// counts are of the whole log, whatever it is written to.
type counts struct {
	written atomic.Uint64
	dropped atomic.Uint64
	unsaid  atomic.Uint64 // dropped, and not yet said so in the log itself
}

func (c *counts) drop(n int) {
	c.dropped.Add(uint64(n))
	c.unsaid.Add(uint64(n))
}

// Stats counts records since the start.
type Stats struct {
	Written uint64
	Dropped uint64 // did not fit into a queue, or could not be written
}

// New starts a log. It is stopped by Close.
func New(c Config) (*Log, error) {
	if c.Log == nil {
		return nil, errors.New("decision: Log is required")
	}
	if c.Stdout == nil {
		c.Stdout = os.Stdout
	}
	if c.Stderr == nil {
		c.Stderr = os.Stderr
	}
	l := &Log{
		Config: c, key: make([]byte, 32),
		next: make(chan *Target), wake: make(chan struct{}, 1), half: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	rand.Read(l.key) // never fails (crypto/rand)
	t, err := l.Prepare(c.Settings)
	if err != nil {
		return nil, err
	}
	l.take(t)
	go l.run(t)
	return l, nil
}

// Add takes an event. It never blocks and never fails: what does not fit is counted.
func (l *Log) Add(e Event) {
	if !l.wanted.Load() {
		return
	}
	l.mu.Lock()
	n := len(l.queue)
	if n >= queueSize {
		l.mu.Unlock()
		l.counts.drop(1)
		return
	}
	l.queue = append(l.queue, e)
	l.mu.Unlock()
	switch n {
	case 0:
		signal(l.wake)
	case queueSize / 2:
		signal(l.half)
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been signalled
	}
}

// Stats may be read at any time.
func (l *Log) Stats() Stats {
	return Stats{Written: l.counts.written.Load(), Dropped: l.counts.dropped.Load()}
}

// Append appends a record's line as it is written now: with fields masked.
func (l *Log) Append(b []byte, r Record) []byte {
	l.current.Load().mask.apply(&r)
	return Append(b, &r)
}

// Prepare opens what settings name, to be used by Use or given up by Discard. Nothing changes before that.
func (l *Log) Prepare(settings config.DecisionLog) (*Target, error) {
	t := &Target{share: float64(settings.SampleAllowed), mask: newMasker(settings.Mask, l.key), taken: make(chan struct{})}
	var out io.Writer
	switch file := settings.File(); {
	case settings.To == config.DecisionsOff:
		return t, nil
	case settings.To == config.DecisionsStdout:
		out = l.Stdout
	case settings.To == config.DecisionsStderr:
		out = l.Stderr
	default:
		f, err := openFile(file, int64(settings.MaxSize), settings.Keep)
		if err != nil {
			return nil, fmt.Errorf("decision_log.to: %w", err)
		}
		out = f
	}
	t.sink = newSink(out, settings.To, &l.counts, l.Log)
	return t, nil
}

// Use makes t what is written to. What was added before goes to the target before it. After Close it does nothing.
func (l *Log) Use(t *Target) {
	select {
	case l.next <- t:
		<-t.taken
	case <-l.done:
		t.Discard()
	}
}

func (l *Log) take(t *Target) *Target {
	l.current.Store(t)
	l.want()
	close(t.taken)
	return t
}

// want notes whether somebody wants events.
func (l *Log) want() {
	l.subscriptions.mu.Lock()
	defer l.subscriptions.mu.Unlock()
	l.wanted.Store(l.current.Load().sink != nil || len(l.subscriptions.all) > 0)
}

// Close writes what waits and returns. The error says what could not be written within the time given. What is added later is lost.
func (l *Log) Close(within time.Duration) error {
	l.once.Do(func() { close(l.stop) })
	<-l.done
	s := l.current.Load().sink
	if s == nil {
		return nil
	}
	select {
	case <-s.done:
		return nil
	case <-time.After(within):
		return fmt.Errorf("the decision log to %s was not written to its end within %s", s.name, within)
	}
}

// run makes records of events until the log is closed. It waits for nobody but events.
func (l *Log) run(t *Target) {
	defer close(l.done)
	for {
		select {
		case <-l.wake:
			select {
			case <-time.After(gather):
			case <-l.half:
			case <-l.stop:
			}
			l.spread(t)
		case next := <-l.next:
			l.spread(t)
			t.sink.finish()
			t = l.take(next)
		case <-l.stop:
			l.spread(t)
			t.sink.finish()
			return
		}
	}
}

// spread makes records of the events that wait, and gives them to subscribers and to the target.
func (l *Log) spread(t *Target) {
	l.mu.Lock()
	batch := l.queue
	l.queue = l.spare[:0]
	l.mu.Unlock()
	for _, e := range batch {
		r := e.Record()
		l.subscriptions.publish(&r)
		t.add(&r)
	}
	t.sink.flush()
	clear(batch) // what they hold may go
	l.spare = batch[:0]
}
