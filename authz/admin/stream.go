package admin

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"doorward/authz/decision"
)

// writeWithin bounds how long a client that does not read is waited for.
const writeWithin = 10 * time.Second

// stream serves the records that the query chooses (decision.ParseFilter), a line each as encode has it, which may leave one out. last=N is
// how many of the newest come first, follow=true has those that are made from then on follow. Lines that were lost because the client was
// slow are a line of their own, {"msg":"decisions dropped","count":N}.
func (c Config) stream(encode func(decision.Record) ([]byte, bool)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		filter, err := decision.ParseFilter(query)
		last := 0
		if n := query.Get("last"); err == nil && n != "" {
			if last, err = strconv.Atoi(n); err == nil && last < 0 {
				err = fmt.Errorf("last is %d; it is 0 or more", last)
			}
		}
		if err != nil {
			WriteRefusal(w, http.StatusBadRequest, err)
			return
		}
		s := &streamed{w: w, control: http.NewResponseController(w), encode: encode}
		_ = s.control.SetReadDeadline(time.Time{}) // the server's own bounds a request, and this one lasts
		w.Header().Set("Content-Type", "application/x-ndjson")
		if query.Get("follow") != "true" {
			s.send(c.newest(last, filter)...)
			return
		}
		following := c.Decisions.Subscribe(filter.Match) // before the last ones are asked for, so that none is missed between
		defer following.Close()
		newest := c.newest(last, filter)
		s.known(newest)
		if s.send(newest...) == nil {
			s.follow(r.Context().Done(), c.Stop, following)
		}
	})
}

func (c Config) newest(n int, filter decision.Filter) []decision.Record {
	if n == 0 || c.Last == nil {
		return nil
	}
	return c.Last(n, filter.Match)
}

// streamed is one client that is answered with lines.
type streamed struct {
	w       http.ResponseWriter
	control *http.ResponseController
	encode  func(decision.Record) ([]byte, bool)
	sent    map[string]bool // what may come a second time, soon after the beginning
}

// known notes what is sent first, since it may be on its way to subscribers too.
func (s *streamed) known(records []decision.Record) {
	s.sent = make(map[string]bool, len(records))
	for _, r := range records {
		s.sent[moment(r)] = true
	}
}

func moment(r decision.Record) string { return r.ID + r.Time.Format(time.RFC3339Nano) }

// send writes records. An error means that the client is gone.
func (s *streamed) send(records ...decision.Record) error {
	for _, r := range records {
		if line, ok := s.encode(r); ok {
			if err := s.line(line); err != nil {
				return err
			}
		}
	}
	return s.control.Flush()
}

func (s *streamed) line(line []byte) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	_, err := s.w.Write(line)
	return err
}

func (s *streamed) follow(gone, stop <-chan struct{}, following *decision.Subscription) {
	for {
		select {
		case <-gone:
			return
		case <-stop:
			return
		case r := <-following.C:
			if n := following.Dropped(); n > 0 {
				if s.line(fmt.Appendf(nil, "{\"msg\":\"decisions dropped\",\"count\":%d}\n", n)) != nil {
					return
				}
			}
			if r.Kind == decision.KindDecision && s.sent[moment(r)] {
				continue
			}
			if s.send(r) != nil {
				return
			}
		}
	}
}
