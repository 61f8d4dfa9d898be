package acme

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"doorward/authz/store"
	"doorward/authz/store/bolt"

	"github.com/caddyserver/certmagic"
)

// plainSeal marks what was sealed for which purpose, so that a test sees whether it was.
type plainSeal struct{}

func (plainSeal) Seal(purpose string, plain []byte) []byte {
	out := append([]byte("sealed for "+purpose+":"), plain...)
	slices.Reverse(out)
	return out
}

func (plainSeal) Open(purpose string, sealed []byte) ([]byte, error) {
	out := slices.Clone(sealed)
	slices.Reverse(out)
	plain, ok := bytes.CutPrefix(out, []byte("sealed for "+purpose+":"))
	if !ok {
		return nil, errors.New("does not open")
	}
	return plain, nil
}

func newStore(t *testing.T) store.Store {
	t.Helper()
	s, err := bolt.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestStorage holds the storage against certmagic's own, which is files in directories.
func TestStorage(t *testing.T) {
	for name, s := range map[string]certmagic.Storage{
		"ours": newStorage(newStore(t), plainSeal{}, time.Now), "files": &certmagic.FileStorage{Path: t.TempDir()},
	} {
		t.Run(name, func(t *testing.T) { testStorage(t, s) })
	}
}

func testStorage(t *testing.T, s certmagic.Storage) {
	ctx := t.Context()
	for key, value := range map[string]string{
		"certificates/ca/a.example.com/a.example.com.crt": "crt", "certificates/ca/a.example.com/a.example.com.key": "key",
		"certificates/ca/a.example.com.au/a.example.com.au.crt": "au", "acme/ca/users/x/x.json": "user", "top": "old",
	} {
		if err := s.Store(ctx, key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Store(ctx, "top", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if value, err := s.Load(ctx, "top"); err != nil || string(value) != "new" {
		t.Errorf("Load of what was written twice: %q, %v", value, err)
	}
	for _, key := range []string{"absent", "certificates/ca", "certificates/ca/a.example.com/a.example.com.json"} {
		if _, err := s.Load(ctx, key); err == nil || key == "absent" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Load %s: %v", key, err)
		}
	}
	for key, want := range map[string]bool{
		"top": true, "certificates": true, "certificates/ca/a.example.com": true, "certificates/ca/a.example": false, "to": false,
	} {
		if s.Exists(ctx, key) != want {
			t.Errorf("Exists(%s) = %t", key, !want)
		}
	}
	listed(t, s, "certificates/ca", false, "certificates/ca/a.example.com", "certificates/ca/a.example.com.au")
	listed(t, s, "certificates/ca", true, "certificates/ca/a.example.com", "certificates/ca/a.example.com.au", "certificates/ca/a.example.com.au/a.example.com.au.crt",
		"certificates/ca/a.example.com/a.example.com.crt", "certificates/ca/a.example.com/a.example.com.key")
	if _, err := s.List(ctx, "absent", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List of what is not there: %v", err)
	}
	if info, err := s.Stat(ctx, "top"); err != nil || info.Key != "top" || !info.IsTerminal || info.Size != 3 || time.Since(info.Modified).Abs() > time.Minute {
		t.Errorf("Stat of a value: %+v, %v", info, err)
	}
	if info, err := s.Stat(ctx, "certificates"); err != nil || info.IsTerminal {
		t.Errorf("Stat of a directory: %+v, %v", info, err)
	}
	if _, err := s.Stat(ctx, "absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of what is not there: %v", err)
	}
	for _, key := range []string{"absent", "top", "certificates/ca/a.example.com"} {
		if err := s.Delete(ctx, key); err != nil || s.Exists(ctx, key) {
			t.Errorf("Delete %s: %v, and it is there: %t", key, err, s.Exists(ctx, key))
		}
	}
	listed(t, s, "certificates/ca", true, "certificates/ca/a.example.com.au", "certificates/ca/a.example.com.au/a.example.com.au.crt")
}

func listed(t *testing.T, s certmagic.Storage, dir string, recursive bool, want ...string) {
	t.Helper()
	got, err := s.List(t.Context(), dir, recursive)
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("List(%s, %t) = %q, %v, want %q", dir, recursive, got, err, want)
	}
}

func TestWhatIsStoredIsSealedForItsKey(t *testing.T) {
	records := newStore(t)
	s := newStorage(records, plainSeal{}, time.Now)
	if err := s.Store(t.Context(), "a/b", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	item, err := records.Get(t.Context(), "acme/data/a/b")
	if err != nil || bytes.Contains(item.Value, []byte("secret")) {
		t.Fatalf("in the store: %q, %v", item.Value, err)
	}
	// Somebody puts it under another key.
	if _, err := records.Apply(t.Context(), store.Op{Key: "acme/data/c", Value: item.Value, Expect: store.Any}); err != nil {
		t.Fatal(err)
	}
	if value, err := s.Load(t.Context(), "c"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load = %q, %v", value, err)
	}
}

// TestTheLongestHostFits: 253 characters are as long as a name can be (RFC 1035, section 2.3.4), and certmagic's keys have it twice.
func TestTheLongestHostFits(t *testing.T) {
	label := strings.Repeat("a", 63)
	host := strings.Join([]string{label, label, label, label[:61]}, ".")
	s := newStorage(newStore(t), plainSeal{}, time.Now)
	key := certmagic.StorageKeys.SiteCert("acme-staging-v02.api.letsencrypt.org-directory", host)
	if err := s.Store(t.Context(), key, []byte("x")); err != nil || len(host) != 253 {
		t.Fatal(err)
	}
	listed(t, s, strings.TrimSuffix(key, "/"+host+".crt"), false, key)
	if hostOf(key) != host {
		t.Errorf("hostOf = %s", hostOf(key))
	}
}

const certKey = "certificates/ca/a.example.com/a.example.com.crt"

// twoReplicas share a store; their locks have short leases.
func twoReplicas(t *testing.T) (a, b *storage) {
	t.Helper()
	records := newStore(t)
	a, b = newStorage(records, plainSeal{}, time.Now), newStorage(records, plainSeal{}, time.Now)
	a.lease, b.lease = 600*time.Millisecond, 600*time.Millisecond
	return a, b
}

func held(t *testing.T, s *storage, name string) bool {
	t.Helper()
	ok, err := s.TryLock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestOneHoldsALock(t *testing.T) {
	a, b := twoReplicas(t)
	if !held(t, a, "x") || held(t, b, "x") || held(t, a, "x") || !held(t, b, "y") {
		t.Fatal("a lock has not one holder")
	}
	time.Sleep(3 * a.lease) // it is renewed
	if held(t, b, "x") {
		t.Error("a lock is lost while it is held")
	}
	got := make(chan error)
	go func() { got <- b.Lock(t.Context(), "x") }()
	select {
	case err := <-got:
		t.Fatalf("two hold a lock: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if err := a.Unlock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := a.Lock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock without the time for it: %v", err)
	}
	if err := a.Unlock(t.Context(), "x"); err == nil {
		t.Error("what is not held was released")
	}
}

// TestALockOfTheDeadExpires, and a holder that only stood still writes nothing any more.
func TestALockOfTheDeadExpires(t *testing.T) {
	a, b := twoReplicas(t)
	lock := issueLock("a.example.com")
	if !held(t, a, lock) {
		t.Fatal("no lock")
	}
	if err := a.Store(t.Context(), certKey, []byte("first")); err != nil {
		t.Fatal(err)
	}
	a.held[lock].stop() // a stands still
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.Lock(ctx, lock); err != nil {
		t.Fatal(err)
	}
	if err := b.Store(t.Context(), certKey, []byte("second")); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"Store": a.Store(t.Context(), certKey, []byte("late")), "Delete": a.Delete(t.Context(), certKey), "again": a.Store(t.Context(), certKey, []byte("later")),
	} {
		if !errors.Is(err, errLost) {
			t.Errorf("%s after the lock was lost: %v", name, err)
		}
	}
	if value, err := b.Load(t.Context(), certKey); string(value) != "second" {
		t.Errorf("the value is %q, %v", value, err)
	}
	if err := a.Unlock(t.Context(), lock); err != nil || held(t, a, lock) {
		t.Errorf("Unlock of a lost lock: %v, and whether it was the other's", err)
	}
}

// TestARenewalWhoseAnswerWasLost was made all the same: the lock is still the holder's.
func TestARenewalWhoseAnswerWasLost(t *testing.T) {
	a, _ := twoReplicas(t)
	if !held(t, a, "x") {
		t.Fatal("no lock")
	}
	l := a.held["x"]
	l.gate <- struct{}{}
	l.version-- // as if it had not heard of the last one
	<-l.gate
	if a.renew(t.Context(), l) {
		t.Fatal("it is taken for lost")
	}
	if err := a.Unlock(t.Context(), "x"); err != nil || !held(t, a, "x") {
		t.Errorf("Unlock: %v, or it is still held", err)
	}
}
