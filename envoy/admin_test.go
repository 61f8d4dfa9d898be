package envoy

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
	"time"
)

func TestParseStats(t *testing.T) {
	text := "cluster.a.upstream_rq_total: 12\nhttp.https.downstream_rq_active: 0\nserver.version: 1\ncontrol_plane.identifier: \"\"\n" +
		"http.https.downstream_rq_time: P0(nan,1) P25(nan,1.02)\nodd: name: 7\nx: No recorded values\n"
	want := map[string]uint64{"cluster.a.upstream_rq_total": 12, "http.https.downstream_rq_active": 0, "server.version": 1, "odd: name": 7}
	if got := parseStats([]byte(text)); !reflect.DeepEqual(got, want) {
		t.Errorf("parseStats = %v\nwant %v", got, want)
	}
}

// TestReadySaysWhatEnvoyWaitsFor answers as Envoy's admin interface does.
func TestReadySaysWhatEnvoyWaitsFor(t *testing.T) {
	rows := []struct {
		name, state string // "" for no admin interface at all
		want        string
	}{
		{"clusters", "PRE_INITIALIZING\n", "envoy is not ready (it waits for its clusters from Doorward): context deadline exceeded"},
		{"listeners", "INITIALIZING\n", "envoy is not ready (it waits for its listeners from Doorward): context deadline exceeded"},
		{"draining", "DRAINING\n", "envoy is not ready (DRAINING): context deadline exceeded"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			admin := answering(t, http.StatusServiceUnavailable, r.state)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := admin.Ready(ctx); err == nil || err.Error() != r.want {
				t.Errorf("Ready = %v\nwant %s", err, r.want)
			}
		})
	}
	if err := answering(t, http.StatusOK, "LIVE\n").Ready(t.Context()); err != nil {
		t.Errorf("Ready of a live Envoy = %v", err)
	}
}

func TestActiveLeavesOutTheAdminInterface(t *testing.T) {
	admin := answering(t, http.StatusOK, "http.admin.downstream_rq_active: 1\nhttp.https.downstream_rq_active: 3\nhttp.http.downstream_rq_active: 2\n")
	if n, err := admin.Active(t.Context()); n != 5 || err != nil {
		t.Errorf("Active = %d, %v; want 5", n, err)
	}
}

func TestIdleWantsTwoQuietMoments(t *testing.T) {
	var asked atomic.Int32
	admin := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		active := map[int32]string{1: "2", 2: "0", 3: "1", 4: "0"}[asked.Add(1)]
		if active == "" {
			active = "0"
		}
		_, _ = io.WriteString(w, "http.https.downstream_rq_active: "+active+"\n")
	})
	if err := idle(t.Context(), admin); err != nil || asked.Load() != 5 {
		t.Errorf("idle = %v after %d questions, want 5", err, asked.Load())
	}
}

func answering(t *testing.T, status int, body string) *Admin {
	return serving(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// serving is an admin client of a handler on a Unix socket.
func serving(t *testing.T, h http.HandlerFunc) *Admin {
	t.Helper()
	socket := filepath.Join(socketDir(t), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return NewAdmin(socket)
}
