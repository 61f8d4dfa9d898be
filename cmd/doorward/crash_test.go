package main

import (
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestSoakKilledAtRandomMoments kills the program with SIGKILL again and again while people sign in and out behind a real Envoy, sessions are
// refreshed and keys rotate. Afterwards each session is good whose cookie a browser was given, none is that was ended, and never did an
// application see a JWT that it could not verify with keys that it had kept for as long as it may.
func TestSoakKilledAtRandomMoments(t *testing.T) {
	kills, longest := 5, time.Minute
	if os.Getenv("DOORWARD_SOAK") != "" {
		kills, longest = 200, 7*time.Minute
	}
	const consumerCache = 2 * time.Second
	c := &crash{stack: prepareStack(t, twoHosts), stopped: make(chan struct{})}
	c.write("doorward.yaml", strings.Replace(c.read("doorward.yaml"), "client_secret: hush", "client_secret: hush\n  scopes: [openid, profile, email, offline_access]", 1)+
		"\nsession: {refresh_interval: 1s}\njwt: {consumer_cache: "+consumerCache.String()+"}\ndecision_log: {to: "+c.dir+"/decisions.log}\n")
	refreshed := c.countRefreshes()
	c.forgiveRefreshes()
	c.runEnvoy()
	c.start()
	c.consumer = newConsumer(c.stack, consumerCache)
	for _, u := range []*application{c.grafana, c.wiki} {
		u.mu.Lock()
		u.app = c.consumer
		u.mu.Unlock()
	}

	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() { c.until(c.person) })
	}
	workers.Go(func() { c.until(c.rotate) })
	begun, killed := time.Now(), 0
	for ; (killed < kills || refreshed.Load() == 0) && time.Since(begun) < longest; killed++ {
		life := 500 * time.Millisecond
		if killed%2 == 0 {
			life = 2500 * time.Millisecond // sessions are refreshed after the first second
		}
		time.Sleep(rand.N(life))
		c.program.Process.Kill()
		<-c.exited
		c.restart()
	}
	close(c.stopped)
	workers.Wait()
	c.served()
	c.judge(t)
	c.consumer.mu.Lock()
	defer c.consumer.mu.Unlock()
	t.Logf("%d kills in %v: %d sessions kept, %d ended, %d sign-ins cut short, %d sign-outs left open, %d refreshes, %d rotations, %d JWTs verified with %d fetched key sets",
		killed, time.Since(begun).Round(time.Second), len(c.kept), len(c.ended), c.cutShort, c.leftOpen, refreshed.Load(), c.rotations, c.consumer.verified, c.consumer.fetched)
	if killed < kills {
		t.Errorf("only %d kills of %d within %v", killed, kills, longest)
	}
	if len(c.kept) == 0 || len(c.ended) == 0 || refreshed.Load() == 0 || c.rotations == 0 || c.consumer.verified == 0 {
		t.Error("something did not happen at all, so that nothing is said of it")
	}
}

// crash is a stack whose program is killed while it is used.
type crash struct {
	*stack
	consumer *consumer
	stopped  chan struct{} // closed when the workers are to end

	mu                            sync.Mutex // guards what follows
	kept, ended                   []*visitor
	cutShort, leftOpen, rotations int
	faults                        []string
}

// until works until it is told to end.
func (c *crash) until(work func()) {
	for {
		select {
		case <-c.stopped:
			return
		default:
			work()
		}
	}
}

// restart starts the program, and waits until it answers through Envoy, which runs on.
func (c *crash) restart() {
	c.t.Helper()
	path, err := program()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", "--config", c.config())
	cmd.Stdout, cmd.Stderr = c.log, c.log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait(); close(exited) }()
	c.program, c.exited = cmd, exited
	probe := newVisitor(c.stack)
	defer probe.CloseIdleConnections()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if page, err := probe.get(c.url("grafana", "/"), programHeaders...); err == nil && page.StatusCode == http.StatusUnauthorized {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("not up again within 30 s\n%s", c.log)
		}
	}
}

// person signs in, uses both hosts for a while, and then signs out, or stays.
func (c *crash) person() {
	v := newVisitor(c.stack)
	defer v.CloseIdleConnections()
	v.signIn(c.url("grafana", "/"), "alice")
	if !v.hasCookie(c.url("grafana", "/")) {
		c.note(&c.cutShort)
		time.Sleep(50 * time.Millisecond)
		return
	}
	for range 1 + rand.IntN(5) {
		c.use(v, http.StatusOK)
		v.get(c.url("wiki", "/")) // which may give a second cookie
		time.Sleep(rand.N(50 * time.Millisecond))
	}
	if rand.IntN(2) == 0 {
		c.mu.Lock()
		c.kept = append(c.kept, v)
		c.mu.Unlock()
		return
	}
	cookies := v.Jar.Cookies(v.parse(c.url("grafana", "/")))
	page, err := v.get(c.url("grafana", "/.pomerium/sign_out"))
	if err != nil || page.StatusCode != http.StatusOK || !strings.HasPrefix(page.Request.URL.String(), c.url("auth", "/.pomerium/signed_out")) {
		c.note(&c.leftOpen) // nobody was told that it is ended
		return
	}
	v.Jar.SetCookies(v.parse(c.url("grafana", "/")), cookies) // as a thief has them
	c.mu.Lock()
	c.ended = append(c.ended, v)
	c.mu.Unlock()
	c.use(v, http.StatusUnauthorized)
}

func (c *crash) note(count *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*count++
}

// use asks for a page. That there is no answer, or that Doorward cannot be asked, says nothing; any other status than the wanted one is a fault.
func (c *crash) use(v *visitor, want int) {
	page, err := v.get(c.url("grafana", "/"), programHeaders...)
	if err != nil || page.StatusCode == want || page.StatusCode == http.StatusServiceUnavailable {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, "status "+page.Status+", want "+http.StatusText(want)+": "+page.text)
}

// rotate asks for another signing key.
func (c *crash) rotate() {
	path, err := program()
	if err != nil {
		return // start has failed for it
	}
	if exec.Command(path, "key", "rotate", "--config", c.config()).Run() == nil {
		c.note(&c.rotations)
	}
	select {
	case <-c.stopped:
	case <-time.After(rand.N(2 * time.Second)):
	}
}

// judge looks at each session once more, when nobody kills any more.
func (c *crash) judge(t *testing.T) {
	t.Helper()
	for _, v := range c.kept {
		for _, host := range []string{"grafana", "wiki"} {
			if !v.hasCookie(c.url(host, "/")) {
				continue
			}
			if status := v.status(c.url(host, "/")); status != "200 OK" {
				t.Errorf("a session is lost: %s at %s", status, host)
			}
		}
	}
	for _, v := range c.ended {
		if status := v.status(c.url("grafana", "/")); status != "401 Unauthorized" {
			t.Errorf("a session that was ended is good: %s", status)
		}
	}
	c.consumer.mu.Lock()
	defer c.consumer.mu.Unlock()
	for _, fault := range append(c.faults, c.consumer.faults...) {
		t.Error(fault)
	}
	if t.Failed() {
		c.stop(syscall.SIGTERM)
		text := c.log.String()
		t.Logf("the end of the log:\n%s", text[max(0, len(text)-20_000):])
	}
}
