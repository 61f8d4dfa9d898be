package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Revision is the name of one version of the route: a hash of everything in it, of the content of the certificate and key files that it
// names, and of the digest of its policy, so that a decision can be pinned to what Envoy routes by. 16 hexadecimal digits.
func (r Route) Revision(policyDigest string) string {
	r.Source, r.ShadowPolicy = Position{}, "" // neither changes what is decided
	data, err := json.Marshal(struct {
		Route    Route
		Contents string
		Policy   string
	}{r, r.contents, policyDigest})
	if err != nil {
		// Route holds strings, numbers, maps of strings and types of this package, which always encode.
		panic("config: encode route: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}
