package decision

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"time"
)

const (
	// chunkSize is how much is written at once, in bytes; one line more at most.
	chunkSize = 32 << 10
	// chunks is how many wait for a slow reader or disk: 4 MiB, or some 8,000 records.
	chunks = 128
	// repeatEvery bounds how often the program's log says that decisions cannot be logged.
	repeatEvery = time.Minute
)

// chunk is some lines.
type chunk struct {
	text  []byte
	lines int
}

// sink writes lines somewhere, in a goroutine of its own. Its methods, which a nil sink has too, are for one caller at a time and never
// block.
type sink struct {
	out    io.Writer
	name   string
	counts *counts
	log    *slog.Logger
	queue  chan chunk
	spare  chan []byte
	done   chan struct{}
	open   chunk // is being filled

	failing bool // of the goroutine, as what follows
	said    time.Time
	torn    bool // what was written last has no end of line
}

func newSink(out io.Writer, name string, counts *counts, log *slog.Logger) *sink {
	s := &sink{
		out: out, name: name, counts: counts, log: log,
		queue: make(chan chunk, chunks), spare: make(chan []byte, 4), done: make(chan struct{}),
	}
	go s.run()
	return s
}

// add appends a record's line.
func (s *sink) add(r *Record) {
	if s.open.text == nil {
		select {
		case s.open.text = <-s.spare:
		default:
			s.open.text = make([]byte, 0, chunkSize+4<<10)
		}
	}
	s.open.text = Append(s.open.text, r)
	s.open.lines++
	if len(s.open.text) >= chunkSize {
		s.flush()
	}
}

// flush hands over what was added. What does not fit is dropped.
func (s *sink) flush() {
	if s == nil || s.open.lines == 0 {
		return
	}
	select {
	case s.queue <- s.open:
		s.open = chunk{}
	default:
		s.counts.drop(s.open.lines)
		s.open = chunk{text: s.open.text[:0]}
	}
}

// finish ends the sink once all that was handed over is written. Nothing may be added after it.
func (s *sink) finish() {
	if s == nil {
		return
	}
	s.flush()
	close(s.queue)
}

func (s *sink) run() {
	defer close(s.done)
	for c := range s.queue {
		s.sayDropped()
		s.write(c)
		select {
		case s.spare <- c.text[:0]:
		default:
		}
	}
	s.sayDropped()
	if f, ok := s.out.(*file); ok {
		if err := f.close(); err != nil {
			s.failed(err, 0)
		}
	}
}

// sayDropped writes a line with how many records are missing before it.
func (s *sink) sayDropped() {
	n := s.counts.unsaid.Swap(0)
	if n == 0 {
		return
	}
	line := fmt.Appendf(nil, `{"time":%q,"level":"WARN","msg":"decisions dropped, because they could not be written in time","count":%d}`+"\n",
		time.Now().UTC().Format(time.RFC3339Nano), n)
	if _, err := s.put(line); err != nil {
		s.counts.unsaid.Add(n)
	}
}

// write counts what could not be written as dropped.
func (s *sink) write(c chunk) {
	n, err := s.put(c.text)
	if err == nil {
		s.counts.written.Add(uint64(c.lines))
		if s.failing {
			s.failing = false
			s.log.Info("decisions are logged again", "to", s.name)
		}
		return
	}
	whole := bytes.Count(c.text[:n], []byte{'\n'})
	s.counts.written.Add(uint64(whole))
	s.counts.drop(c.lines - whole)
	s.failed(err, c.lines-whole)
}

// put writes whole lines, on a line of their own even after a write that ended within one. It returns how many bytes of text were written.
func (s *sink) put(text []byte) (int, error) {
	if s.torn {
		if _, err := s.out.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		s.torn = false
	}
	n, err := s.out.Write(text)
	s.torn = err != nil && n > 0 && text[n-1] != '\n'
	return n, err
}

// failed says in the program's log that decisions are lost, now and then while it lasts.
func (s *sink) failed(err error, lines int) {
	if s.failing && time.Since(s.said) < repeatEvery {
		return
	}
	s.failing, s.said = true, time.Now()
	s.log.Error("decisions cannot be logged; requests are decided all the same", "to", s.name, "cause", err.Error(), "lost", lines)
}
