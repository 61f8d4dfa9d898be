package session

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func openSealer(t testing.TB, file string) *Sealer {
	t.Helper()
	s, err := OpenSealer(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	s := openSealer(t, file)
	for _, plain := range [][]byte{{}, []byte("x"), bytes.Repeat([]byte{0xff}, 100_000)} {
		sealed := s.Seal("state", plain)
		if got, err := s.Open("state", sealed); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes came back as %d, %v", len(plain), len(got), err)
		}
		if len(sealed) != len(plain)+45 {
			t.Errorf("%d bytes sealed are %d, want 45 more", len(plain), len(sealed))
		}
		if again := s.Seal("state", plain); bytes.Equal(again, sealed) {
			t.Error("the same bytes were sealed the same way twice")
		}
		for _, purpose := range []string{"", "stat", "state\x00", "State", "session"} {
			if _, err := s.Open(purpose, sealed); err == nil {
				t.Errorf("sealed for state, opened for %q", purpose)
			}
		}
	}
	again := openSealer(t, file)
	if got, err := again.Open("state", s.Seal("state", []byte("x"))); err != nil || string(got) != "x" {
		t.Errorf("after reading the key again: %q, %v", got, err)
	}
	if _, err := openSealer(t, file+"2").Open("state", s.Seal("state", nil)); err == nil || err.Error() != "sealed value does not open" {
		t.Errorf("another key: got %v", err)
	}
}

func TestSealerTampered(t *testing.T) {
	s := openSealer(t, filepath.Join(t.TempDir(), "key"))
	sealed := s.Seal("state", []byte("plain"))
	for i := range sealed {
		for bit := range 8 {
			bad := bytes.Clone(sealed)
			bad[i] ^= 1 << bit
			if _, err := s.Open("state", bad); err == nil {
				t.Fatalf("bit %d of byte %d may change", bit, i)
			}
		}
		if _, err := s.Open("state", sealed[:i]); err == nil {
			t.Fatalf("cut to %d bytes it opens", i)
		}
	}
	if _, err := s.Open("state", append(bytes.Clone(sealed), 0)); err == nil {
		t.Error("with a byte more it opens")
	}
}

// TestSealerRotated puts a new key first and then takes the old one away.
func TestSealerRotated(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, lines ...string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	key := func(b byte) string {
		return keyPrefix + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32))
	}
	old := openSealer(t, write("old", key(1)))
	both := openSealer(t, write("both", "# new", key(2), "", "  "+key(1)+"  "))
	fresh := openSealer(t, write("new", key(2)))
	before, after := old.Seal("p", []byte("old")), both.Seal("p", []byte("new"))
	opens := func(s *Sealer, sealed []byte, want bool) {
		t.Helper()
		if _, err := s.Open("p", sealed); (err == nil) != want {
			t.Errorf("got %v, want it to open: %v", err, want)
		}
	}
	opens(both, before, true)
	opens(both, after, true)
	opens(old, after, false)
	opens(fresh, after, true)
	opens(fresh, before, false)
}

func TestSealerFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	sealers := make([]*Sealer, 16)
	var wg sync.WaitGroup
	for i := range sealers {
		wg.Go(func() {
			s, err := OpenSealer(file)
			if err != nil {
				t.Error(err)
			}
			sealers[i] = s
		})
	}
	wg.Wait()
	sealed := sealers[0].Seal("p", nil)
	for _, s := range sealers {
		if _, err := s.Open("p", sealed); err != nil {
			t.Error("opened at the same time, two sealers have different keys")
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left in the directory: %v, %v", files, err)
	}

	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lost := "restore the file from a backup; without it every session and generated signing key is lost"
	for content, want := range map[string]string{
		"":                                "it has no key: " + lost,
		"# only this\n":                   "it has no key: " + lost,
		string(data[:len(data)-2]):        "line 4 is not seal-key-1: and 32 bytes in base64url: " + lost,
		string(data) + "secret\n":         "line 5 is not seal-key-1: and 32 bytes in base64url: " + lost,
		"seal-key-2:" + string(data[11:]): "line 1 is not seal-key-1: and 32 bytes in base64url: " + lost,
		strings.Repeat("x", 1<<20):        "read: bufio.Scanner: token too long",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenSealer(file); err == nil || err.Error() != "sealing key "+file+": "+want {
			t.Errorf("%.20q: got %v\nwant %s", content, err, want)
		}
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("sealing key %s is open to everybody (mode 0644): run chmod 600 on it", file)
	if _, err := OpenSealer(file); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if _, err := OpenSealer(filepath.Join(dir, "none", "key")); err == nil || !strings.HasPrefix(err.Error(), "create sealing key ") {
		t.Errorf("in a directory that is not there: got %v", err)
	}
}

func TestSealerPrints(t *testing.T) {
	s := openSealer(t, filepath.Join(t.TempDir(), "key"))
	for _, printed := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), fmt.Sprintf("%v", struct{ S *Sealer }{s})} {
		if !strings.Contains(printed, "[redacted]") || strings.Contains(printed, "sealKey") {
			t.Errorf("printed %s", printed)
		}
	}
}

// TestSealerVectors are the test vectors of C2SP's XAES-256-GCM.
func TestSealerVectors(t *testing.T) {
	for _, v := range []struct {
		key        byte
		additional string
		want       string
	}{
		{1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		k, err := newSealKey(bytes.Repeat([]byte{v.key}, 32))
		if err != nil {
			t.Fatal(err)
		}
		aead, iv, err := k.aead([]byte("ABCDEFGHIJKLMNOPQRSTUVWX"))
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(aead.Seal(nil, iv, []byte("XAES-256-GCM"), []byte(v.additional))); got != v.want {
			t.Errorf("got %s, want %s", got, v.want)
		}
	}
}

// FuzzOpen holds that nothing opens but what was sealed.
func FuzzOpen(f *testing.F) {
	s := openSealer(f, filepath.Join(f.TempDir(), "key"))
	sealed := s.Seal("state", []byte("plain"))
	f.Add("state", sealed, false)
	f.Add("state", sealed[:20], false)
	f.Add("", []byte{}, true)
	f.Fuzz(func(t *testing.T, purpose string, data []byte, seal bool) {
		if seal {
			if got, err := s.Open(purpose, s.Seal(purpose, data)); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("what was sealed came back as %q, %v", got, err)
			}
			return
		}
		if _, err := s.Open(purpose, data); err == nil && (purpose != "state" || !bytes.Equal(data, sealed)) {
			t.Fatalf("%q opened for %q", data, purpose)
		}
	})
}
