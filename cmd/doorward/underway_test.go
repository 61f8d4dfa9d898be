package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// slowSpeaker is an upstream that says its name once it may.
func slowSpeaker(t *testing.T, name string) (url string, asked <-chan struct{}, may chan<- struct{}) {
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		io.WriteString(w, name)
	}))
	t.Cleanup(s.Close)
	return s.URL, arrived, release
}

// TestAChangeLetsRequestsEnd: what is under way when a route is led elsewhere, or is removed, is answered by the upstream that it was sent to.
func TestAChangeLetsRequestsEnd(t *testing.T) {
	f := newFleet(t, externalParts(t))
	f.startEnvoy()
	for _, row := range []struct {
		what   string
		remove []string
		put    []string
	}{
		{"led elsewhere", nil, []string{f.route("slow", speaker(t, "another"))}},
		{"removed", []string{"slow"}, nil},
	} {
		url, asked, may := slowSpeaker(t, "first")
		f.mustApply(nil, f.route("slow", url), f.route("other", speaker(t, "other")))
		f.says("other", "other", 10*time.Second)
		answer := make(chan string, 1)
		go func() {
			status, body, err := f.ask("slow")
			answer <- fmt.Sprint(status, " ", body, " ", err)
		}()
		select {
		case <-asked:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: the request does not arrive: %s\n%s", row.what, <-answer, f.log)
		}
		f.mustApply(row.remove, row.put...)
		time.Sleep(time.Second) // longer than Doorward and Envoy need to take away what is not needed any more
		may <- struct{}{}
		if got := <-answer; got != "200 first <nil>" {
			t.Errorf("a request to a route that was %s meanwhile: %s, want 200 from the first upstream", row.what, got)
		}
	}
}
