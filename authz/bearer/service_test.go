package bearer

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"doorward/authz/session"
	"doorward/authz/store"
	"doorward/authz/store/bolt"
)

// desk is service tokens on a real store, with a clock that the test sets.
type desk struct {
	*ServiceTokens
	t     *testing.T
	dir   string
	clock time.Time
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir(), clock: time.Now()}
	db, err := bolt.Open(filepath.Join(d.dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	d.ServiceTokens = d.replica(db)
	return d
}

// replica is another process on the same store.
func (d *desk) replica(db store.Store) *ServiceTokens {
	d.t.Helper()
	sealer, err := session.OpenSealer(filepath.Join(d.dir, "seal.key"))
	if err != nil {
		d.t.Fatal(err)
	}
	s, err := NewServiceTokens(Config{Store: db, Sealer: sealer, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return d.clock }})
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// run runs one until the test ends, and waits until it holds the tokens in memory.
func (d *desk) run(s *ServiceTokens) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	d.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			d.t.Error(err)
		}
	})
	d.until(func() bool { return s.known.Load() != nil })
}

func (d *desk) until(holds func() bool) {
	d.t.Helper()
	for end := time.Now().Add(5 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatal("not within five seconds")
		}
	}
}

func (d *desk) create(name string) string {
	d.t.Helper()
	token, err := d.Create(d.t.Context(), Request{Name: name, Routes: []string{"api", "metrics"}, Groups: []string{"robots"}, Life: time.Hour})
	if err != nil {
		d.t.Fatal(err)
	}
	return token
}

var api = &Allowed{Route: "api", ServiceTokens: true}

func (d *desk) find(token string, a *Allowed) (*session.Session, error) {
	return (&Finder{Service: d.ServiceTokens}).Find(d.t.Context(), token, a)
}

// TestServiceToken: with the tokens in memory and without, the same token is good and the same are not.
func TestServiceToken(t *testing.T) {
	for _, running := range []bool{false, true} {
		d := newDesk(t)
		if running {
			d.run(d.ServiceTokens)
		}
		token, other := d.create("deploy"), d.create("backup")
		found, err := d.find(token, api)
		if err != nil {
			t.Fatal(err)
		}
		if u := found.User; u.ID != "service:deploy" || u.Email != "" || u.EmailVerified || len(u.Groups) != 1 || u.Groups[0] != "robots" || u.Claims == nil {
			t.Errorf("the user is %+v", u)
		}
		if found.Version == 0 || len(found.ID) != 32 || !found.Expires.Equal(d.clock.UTC().Truncate(time.Second).Add(time.Hour)) || found.AMR[0] != Method {
			t.Errorf("the session is %+v", found)
		}
		if second, err := d.find(other, api); err != nil || second.ID == found.ID {
			t.Errorf("another token: %v, session %v", err, second)
		}
		flipped := []byte(token)
		flipped[10] ^= 1
		unknown, _ := newSecret()
		for name, row := range map[string]struct {
			token string
			route *Allowed
			want  string
		}{
			"another route":               {token, &Allowed{Route: "wiki", ServiceTokens: true}, `the bearer token is not valid: the service token "deploy" is not for this route`},
			"a route that takes none":     {token, &Allowed{Route: "api"}, "the bearer token is not valid: a service token, which the route does not take"},
			"one character changed":       {string(flipped), api, "the bearer token is not valid: it looks like a service token, but none was ever made so: was it cut off?"},
			"cut off":                     {token[:len(token)-1], api, "the bearer token is not valid: it looks like a service token, but none was ever made so: was it cut off?"},
			"padded":                      {token + "=", api, "the bearer token is not valid: it looks like a service token, but none was ever made so: was it cut off?"},
			"the prefix in capitals":      {"DW_" + token[3:], api, "the bearer token is not valid: no service token, and the route takes no others"},
			"well made, but not by us":    {unknown, api, "the bearer token is not valid: no service token with this value: it was revoked, has expired, or never was"},
			"nothing":                     {"", api, "the bearer token is not valid: no service token, and the route takes no others"},
			"longer than any token is":    {tokenPrefix + strings.Repeat("a", maxToken), api, "the bearer token is not valid: it has 16387 bytes, more than the 16384 allowed"},
			"a JWT":                       {"e30.e30.x", api, "the bearer token is not valid: no service token, and the route takes no others"},
			"with a line break behind it": {token + "\n", api, "the bearer token is not valid: it looks like a service token, but none was ever made so: was it cut off?"},
		} {
			if found, err := d.find(row.token, row.route); !errors.Is(err, ErrInvalid) || err.Error() != row.want || found != nil {
				t.Errorf("running %v, %s: %v", running, name, err)
			}
		}
		d.clock = d.clock.Add(time.Hour)
		if _, err := d.find(token, api); !errors.Is(err, ErrInvalid) {
			t.Errorf("after its time: %v", err)
		}
	}
}

func TestServiceTokenIsNotAtRest(t *testing.T) {
	d := newDesk(t)
	token := d.create("deploy")
	err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, secret := range []string{token, token[len(tokenPrefix):], "robots"} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds %q", path, secret)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRevocationIsImmediate: in the process that revokes when Revoke returns, in another as soon as its store tells it.
func TestRevocationIsImmediate(t *testing.T) {
	d := newDesk(t)
	other := d.replica(d.Store)
	d.run(d.ServiceTokens)
	d.run(other)
	for range 20 {
		token := d.create("deploy")
		d.until(func() bool { _, err := other.find(t.Context(), token, "api"); return err == nil })
		if err := d.Revoke(t.Context(), "deploy"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.find(token, api); !errors.Is(err, ErrInvalid) {
			t.Fatalf("after Revoke has returned: %v", err)
		}
		d.until(func() bool { _, err := other.find(t.Context(), token, "api"); return errors.Is(err, ErrInvalid) })
	}
	var refused Refusal
	if err := d.Revoke(t.Context(), "deploy"); !errors.As(err, &refused) || err.Error() != `there is no service token "deploy"; doorward token list shows those that there are` {
		t.Errorf("once more: %v", err)
	}
}

// TestStoreThatDoesNotAnswerDenies: what is not known is no reason to call a token invalid, and none to let it in.
func TestStoreThatDoesNotAnswerDenies(t *testing.T) {
	d := newDesk(t)
	token := d.create("deploy")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if found, err := d.ServiceTokens.find(ctx, token, "api"); found != nil || err == nil || errors.Is(err, ErrInvalid) {
		t.Errorf("%v, %v", found, err)
	}
}

func TestLive(t *testing.T) {
	d := newDesk(t)
	f := &Finder{Service: d.ServiceTokens, Issuers: newOffice(t).Issuers}
	token := d.create("deploy")
	found, err := d.find(token, api)
	if err != nil {
		t.Fatal(err)
	}
	changes, err := f.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if live, end, err := f.Live(t.Context(), found.ID); err != nil || live.Version != found.Version || !end.Equal(found.Expires) {
		t.Errorf("%v until %s, %v", live, end, err)
	}
	if err := d.Revoke(t.Context(), "deploy"); err != nil {
		t.Fatal(err)
	}
	if id := <-changes; id != found.ID {
		t.Errorf("a change of %q was told, not of %q", id, found.ID)
	}
	if _, _, err := f.Live(t.Context(), found.ID); !errors.Is(err, session.ErrNone) {
		t.Errorf("after its revocation: %v", err)
	}
}

func TestRequests(t *testing.T) {
	d := newDesk(t)
	d.create("taken")
	for _, row := range []struct {
		name   string
		change func(*Request)
		want   string
	}{
		{"a name with a colon", func(r *Request) { r.Name = "a:b" }, `"a:b" is not a name; it has 1 to 63 of a-z, 0-9, dot, underscore and hyphen`},
		{"a name that there is", func(r *Request) { r.Name = "taken" }, `there is a service token "taken" already; revoke it or choose another name`},
		{"no route", func(r *Request) { r.Routes = nil }, "name the routes that take the token"},
		{"more than a year", func(r *Request) { r.Life = 367 * 24 * time.Hour }, "a token is good for a minute at least and for 366 days at most, not for 8808h0m0s"},
		{"no time", func(r *Request) { r.Life = 0 }, "a token is good for a minute at least and for 366 days at most, not for 0s"},
		{"a group with a line break", func(r *Request) { r.Groups = []string{"a\nb"} }, "\"a\\nb\" is not a group: it is printable and has at most 256 bytes"},
	} {
		r := Request{Name: "new", Routes: []string{"api"}, Life: time.Hour}
		row.change(&r)
		if _, err := d.Create(t.Context(), r); err == nil || err.Error() != row.want || !errors.As(err, new(Refusal)) {
			t.Errorf("%s: %v, want %s", row.name, err, row.want)
		}
	}
}

func TestLastUse(t *testing.T) {
	d := newDesk(t)
	d.run(d.ServiceTokens)
	token := d.create("deploy")
	d.create("idle")
	if _, err := d.find(token, api); err != nil {
		t.Fatal(err)
	}
	if err := d.writeUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*ServiceTokens{"here": d.ServiceTokens, "in another process": d.replica(d.Store)} {
		list, err := s.List(t.Context())
		if err != nil || len(list) != 2 || list[0].Name != "deploy" || !list[0].Used.Equal(d.clock.Truncate(time.Second)) || !list[1].Used.IsZero() {
			t.Errorf("%s: %+v, %v", name, list, err)
		}
	}
}
