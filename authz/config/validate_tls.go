package config

import (
	"encoding/base64"
	"net/mail"
	"slices"
	"strings"
)

// Let's Encrypt's directories: letsencrypt.org/docs/acme-protocol-updates and letsencrypt.org/docs/staging-environment.
const (
	letsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	letsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// tls checks what TLS is spoken with, and completes it.
func (c *checker) tls(p place) {
	t := &c.c.TLS
	versions := map[string]string{TLSIntermediate: "1.2", TLSModern: "1.3"}
	switch least, known := versions[t.Profile]; {
	case !known:
		c.add(p.key("profile"), "%q is not known; it is %s or %s", shorten(t.Profile), TLSIntermediate, TLSModern)
	case !p.has("min_version"):
		t.MinVersion = least
	case t.MinVersion != "1.2" && t.MinVersion != "1.3":
		c.add(p.key("min_version"), "%q is not a version of TLS that is spoken; it is 1.2 or 1.3", shorten(t.MinVersion))
	case t.MinVersion < least:
		c.add(p.key("min_version"), "%s is less than the profile %s allows; remove one of the two", t.MinVersion, t.Profile)
	}
	if t.ACME == nil {
		return
	}
	if t.LocalCA {
		c.add(p.key("local_ca"), "tls.acme is set too, and both are for the hosts that no file covers; remove one of them")
	}
	c.acme(p.key("acme"), t.ACME)
}

// acme checks the ACME server and the account.
func (c *checker) acme(p place, a *ACME) {
	if address, err := mail.ParseAddress(a.Email); !p.has("email") {
		c.add(p.key("email"), "required; the server writes to it when something is wrong with the certificates")
	} else if err != nil || address.Address != a.Email {
		c.add(p.key("email"), "%q is not an e-mail address; write it as ops@example.com", shorten(a.Email))
	}
	c.directory(p, a)
	if a.CAFile != "" {
		if err := c.pool(a.CAFile); err != nil {
			c.add(p.key("ca_file"), "%s", err)
		}
		a.contents = c.files.sum("", []string{a.CAFile})
	}
	if a.EAB != nil {
		c.eab(p.key("eab"), a.EAB)
	}
	c.challenges(p.key("challenges"), a)
}

// directory checks where the server is, and fills in Let's Encrypt.
func (c *checker) directory(p place, a *ACME) {
	named := p.has("directory")
	switch {
	case named && a.Staging:
		c.add(p.key("staging"), "chooses Let's Encrypt's server, and directory names one; remove one of the two")
	case a.Directory.Scheme() == "http":
		c.add(p.key("directory"), "%q must be https: over http anybody on the way could get certificates for the hosts", shorten(a.Directory.String()))
	case !named:
		directory := letsEncrypt
		if a.Staging {
			directory = letsEncryptStaging
		}
		a.Directory, _ = ParseURL(directory) // a constant
	}
}

// eab checks an external account binding and reads its key.
func (c *checker) eab(p place, e *EAB) {
	if e.KeyID == "" {
		c.add(p.key("key_id"), "required; it is what the server's operator calls the account")
	}
	if e.HMACKeyFile == "" {
		c.add(p.key("hmac_key_file"), "required; it names the file with the key that the server's operator has given out")
		return
	}
	text, err := c.files.file(e.HMACKeyFile)
	if err != nil {
		c.add(p.key("hmac_key_file"), "%s", err)
		return
	}
	key := strings.TrimRight(strings.TrimSpace(string(text)), "=")
	if raw, err := base64.RawURLEncoding.DecodeString(key); err != nil || len(raw) == 0 {
		c.add(p.key("hmac_key_file"), "%s does not hold a key in base64url and nothing else", e.HMACKeyFile)
	}
	e.HMACKey = Secret(key)
}

// challenges checks how hosts are shown to be ours, and fills in what the listeners allow.
func (c *checker) challenges(p place, a *ACME) {
	for i, name := range a.Challenges {
		switch {
		case name != ChallengeHTTP && name != ChallengeTLSALPN:
			c.add(p.orItem(i), "%q is not known; it is %s or %s", shorten(name), ChallengeHTTP, ChallengeTLSALPN)
		case name == ChallengeHTTP && c.c.Listen.HTTP == "":
			c.add(p.orItem(i), "%s needs the plain listener, and listen.http is off; remove one of the two", name)
		}
	}
	if len(a.Challenges) > 0 {
		return
	}
	a.Challenges = Names{ChallengeTLSALPN}
	if c.c.Listen.HTTP != "" {
		a.Challenges = Names{ChallengeHTTP, ChallengeTLSALPN}
	}
}

// Solves says whether hosts are shown to be ours in that way: ChallengeHTTP or ChallengeTLSALPN. Nil solves nothing.
func (a *ACME) Solves(challenge string) bool {
	return a != nil && slices.Contains(a.Challenges, challenge)
}

// Equal says whether the server would be asked in the same way.
func (a *ACME) Equal(b *ACME) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Email == b.Email && a.Directory == b.Directory && a.CAFile == b.CAFile && a.contents == b.contents &&
		slices.Equal(a.Challenges, b.Challenges) && (a.EAB == nil) == (b.EAB == nil) && (a.EAB == nil || *a.EAB == *b.EAB)
}
