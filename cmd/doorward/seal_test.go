package main

import (
	"path/filepath"
	"testing"
	"time"

	"doorward/authz/session"
	"doorward/authz/store"
	"doorward/authz/store/bolt"
)

func TestOldSealingKeysGo(t *testing.T) {
	dir := t.TempDir()
	sealer, err := session.OpenSealer(filepath.Join(dir, "seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Apply(t.Context(), store.Op{Key: "x", Value: sealer.Seal("x", []byte("secret"))}); err != nil {
		t.Fatal(err)
	}
	s := &seal{sealer: sealer, store: db}
	if err := sealer.Rotate(); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		after time.Duration
		goes  bool
	}{{0, false}, {sealRest - time.Second, false}, {sealRest + time.Second, true}, {2 * sealRest, false}} {
		if goes, err := s.tidy(t.Context(), time.Now().Add(row.after)); goes != row.goes || err != nil {
			t.Errorf("after %s: goes %t, %v, want %t", row.after, goes, err, row.goes)
		}
	}
	item, err := db.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := sealer.Open("x", item.Value); err != nil || string(plain) != "secret" {
		t.Errorf("got %q, %v", plain, err)
	}
}
