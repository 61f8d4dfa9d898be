package bearer

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// A service token is tokenPrefix and the base64url of 32 random bytes with their CRC-32 (IEEE) behind them: so scanners for leaked secrets find
// it, and tell it from what only looks like one.
const (
	tokenPrefix = "dw_"
	secretSize  = 32
	tokenLength = len(tokenPrefix) + (secretSize+4)/3*4
)

// newSecret returns a token, and its hash.
func newSecret() (string, [32]byte) {
	var raw [secretSize]byte
	rand.Read(raw[:])
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(checked(raw[:])), sha256.Sum256(raw[:])
}

func checked(secret []byte) []byte {
	return binary.BigEndian.AppendUint32(secret, crc32.ChecksumIEEE(secret))
}

// hashSecret returns the hash of a token that newSecret could have made.
func hashSecret(token string) (hash [32]byte, ok bool) {
	text, found := strings.CutPrefix(token, tokenPrefix)
	if !found || len(token) != tokenLength {
		return hash, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != secretSize+4 || string(checked(raw[:secretSize:secretSize])) != string(raw) {
		return hash, false
	}
	return sha256.Sum256(raw[:secretSize]), true
}
