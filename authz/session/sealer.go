package session

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// Sealed bytes: version (1), key id (4), nonce (24), ciphertext, tag (16). The purpose is additional data.
const (
	sealVersion  = 1
	sealHeader   = 1 + 4
	sealNonce    = 24
	sealTag      = 16
	keyPrefix    = "seal-key-1:" // of a line in the key file; then 32 bytes in base64url
	keyFileIntro = "# Seals Doorward's sessions and signing keys. Keep it secret, and keep a copy of it.\n" +
		"# The first key seals, every one of them opens. doorward seal rotate puts a new one first; the others go when nothing is left\n" +
		"# that they sealed.\n"
)

// Sealer encrypts and authenticates small values with a key of the data directory: AES-256-GCM with a random nonce of 192 bits (the
// construction is C2SP's XAES-256-GCM), so one key is good for any number of values. The purpose is bound as additional data, so that
// a value sealed for one purpose never opens for another. Safe for concurrent use. It prints as "[redacted]".
type Sealer struct {
	file string
	keys atomic.Pointer[[]sealKey] // the first one seals
}

type sealKey struct {
	id    [4]byte
	block cipher.Block
	k1    [16]byte // CMAC subkey (NIST SP 800-38B, section 6.1)
}

// OpenSealer reads the key from a file, or creates it with mode 0600 and syncs it before returning. The directory must exist.
func OpenSealer(file string) (*Sealer, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createKeyFile(file); err != nil {
			return nil, fmt.Errorf("create sealing key %s: %w", file, err)
		}
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read sealing key: %w", err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read sealing key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return nil, fmt.Errorf("sealing key %s is open to everybody (mode %04o): run chmod 600 on it", file, mode)
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("sealing key %s: %w", file, err)
	}
	s := &Sealer{file: file}
	s.keys.Store(&keys)
	return s, nil
}

// createKeyFile makes the file in one step, so that neither a crash nor another process sees half of it. Another process's file is kept.
func createKeyFile(file string) error {
	var key [32]byte
	rand.Read(key[:])
	err := writeKeyFile(file, keyFileIntro+keyPrefix+base64.RawURLEncoding.EncodeToString(key[:])+"\n", os.Link)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// writeKeyFile writes beside the file with mode 0600, syncs, and puts it into its place by os.Rename or os.Link.
func writeKeyFile(file, text string, place func(from, to string) error) error {
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, filepath.Base(file)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := place(f.Name(), file); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// parseKeys reads a key file. Its errors never hold a part of it.
func parseKeys(data []byte) (keys []sealKey, err error) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		encoded, ok := strings.CutPrefix(line, keyPrefix)
		key, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
		if !ok || err != nil || len(key) != 32 {
			return nil, fmt.Errorf("line %d is not %s and 32 bytes in base64url: restore the file from a backup; "+
				"without it every session and generated signing key is lost", n, keyPrefix)
		}
		k, err := newSealKey(key)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no key: restore the file from a backup; without it every session and generated signing key is lost")
	}
	return keys, nil
}

func newSealKey(key []byte) (sealKey, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealKey{}, err
	}
	k := sealKey{block: block}
	sum := sha256.Sum256(append([]byte("doorward sealing key id\n"), key...))
	copy(k.id[:], sum[:])
	block.Encrypt(k.k1[:], k.k1[:])
	msb := k.k1[0] >> 7
	for i := range 15 {
		k.k1[i] = k.k1[i]<<1 | k.k1[i+1]>>7
	}
	k.k1[15] = k.k1[15]<<1 ^ msb*0x87
	return k, nil
}

// aead derives the key of one value from the first half of its nonce, and returns the second half to use with it.
func (k *sealKey) aead(nonce []byte) (cipher.AEAD, []byte, error) {
	var derived [32]byte
	for i := range 2 {
		m := derived[16*i : 16*i+16]
		copy(m, []byte{0, byte(i + 1), 'X', 0})
		copy(m[4:], nonce[:12])
		for j := range m {
			m[j] ^= k.k1[j]
		}
		k.block.Encrypt(m, m)
	}
	block, err := aes.NewCipher(derived[:])
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, nonce[12:], err
}

// Seal returns the sealed bytes: a version byte, the key's id (4 bytes), nonce (24), ciphertext and tag (16).
func (s *Sealer) Seal(purpose string, plain []byte) []byte {
	key := &(*s.keys.Load())[0]
	out := make([]byte, sealHeader+sealNonce, sealHeader+sealNonce+len(plain)+sealTag)
	out[0] = sealVersion
	copy(out[1:], key.id[:])
	nonce := out[sealHeader:]
	rand.Read(nonce)
	aead, iv, err := key.aead(nonce)
	if err != nil {
		// Only a wrong key or block size is an error, and both are constant.
		panic("session: seal: " + err.Error())
	}
	return aead.Seal(out, iv, plain, []byte(purpose))
}

// errSealed says no more, so that nobody learns from it how to forge a value.
var errSealed = errors.New("sealed value does not open")

// Open returns what was sealed for this purpose, or an error that says no more than that it does not open.
func (s *Sealer) Open(purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < sealHeader+sealNonce+sealTag || sealed[0] != sealVersion {
		return nil, errSealed
	}
	keys := *s.keys.Load()
	for i := range keys {
		if !bytes.Equal(sealed[1:sealHeader], keys[i].id[:]) {
			continue
		}
		aead, iv, err := keys[i].aead(sealed[sealHeader : sealHeader+sealNonce])
		if err != nil {
			return nil, errSealed
		}
		if plain, err := aead.Open(nil, iv, sealed[sealHeader+sealNonce:], []byte(purpose)); err == nil {
			return plain, nil
		}
	}
	return nil, errSealed
}

// String keeps the keys out of anything printed.
func (*Sealer) String() string { return redacted }

// GoString keeps the keys out of %#v.
func (*Sealer) GoString() string { return redacted }
