package envoy

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
)

// logFormat makes each of Envoy's log records one line of JSON (%j is the message escaped for it).
const logFormat = `{"level":"%l","logger":"%n","message":"%j"}`

// maxLogLine bounds one line: Envoy may quote a whole configuration that it refuses.
const maxLogLine = 8 << 10

// lineLog is the writer that Envoy's output goes to. It passes each line on at its own level; lines that are no record, as of a crash,
// are errors.
type lineLog struct {
	log *slog.Logger

	mu      sync.Mutex
	pending []byte
	cut     bool // the rest of the pending line is thrown away
	recent  string
	ending  bool // warnings are no news any more
}

// Write takes any piece of output. It never fails.
func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		p = rest
		if room := maxLogLine - len(l.pending); len(line) > room {
			line, l.cut = line[:room], true
		}
		l.pending = append(l.pending, line...)
		if ended {
			l.emit()
		}
	}
	return n, nil
}

// emit logs the pending line.
func (l *lineLog) emit() {
	line, cut := string(l.pending), l.cut
	l.pending, l.cut = l.pending[:0], false
	if strings.TrimSpace(line) == "" {
		return
	}
	whole := line
	if cut {
		whole = strings.TrimRight(line, `\`) + ` ..."}`
	}
	var access map[string]any
	if json.Unmarshal([]byte(whole), &access) == nil && access["log"] == "access" {
		l.access(access)
		return
	}
	var record struct{ Level, Logger, Message string }
	if json.Unmarshal([]byte(whole), &record) != nil {
		record.Level, record.Message = "error", line
	}
	l.recent = record.Message
	level := levelOf(record.Level)
	if l.ending && level == slog.LevelWarn {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, record.Message, "logger", record.Logger)
}

// access logs a line of Envoy's access log: its members as attributes, in the order of their names. Anybody can cause one, so it is no error.
func (l *lineLog) access(line map[string]any) {
	attrs := make([]any, 0, 2*len(line))
	for _, name := range slices.Sorted(maps.Keys(line)) {
		if name != "log" {
			attrs = append(attrs, name, line[name])
		}
	}
	l.log.Info("request failed", attrs...)
}

// end says that Envoy is told to end, which it warns of itself, as it does of every stream that this closes.
func (l *lineLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = true
}

// last is the latest message.
func (l *lineLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recent
}

// levelOf maps Envoy's levels.
func levelOf(level string) slog.Level {
	switch level {
	case "trace", "debug":
		return slog.LevelDebug
	case "info":
		return slog.LevelInfo
	case "warning":
		return slog.LevelWarn
	}
	return slog.LevelError
}
