package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"doorward/authz/store"
)

// The keys. Each value is sealed for its key, except the empty ones of the indices and the times of sign-outs.
//
//	session/<id>                     the session without its tokens, as JSON
//	session-tokens/<id>              the tokens: of their own, so that refreshing them leaves the session's version alone
//	cookie/<SHA-256 of the value>    link
//	session-cookie/<id>/<SHA-256>    the cookies of a session
//	session-sid/<hash>/<id>          the sessions of (issuer, sid)
//	session-subject/<hash>/<id>      the sessions of (issuer, subject)
//	session-browser/<hash>/<id>      the sessions of one browser
//	session-used/<id>                when the session was last used: Unix seconds, 8 bytes, big-endian
//	refresh-due/<time>/<id>          when the session is to be refreshed
//	signed-out/<kind>/<hash>         when (issuer, sid), (issuer, subject) or everybody was last signed out: Unix nanoseconds, 8 bytes, big-endian
const (
	sessionPrefix = "session/"
	cookiePrefix  = "cookie/"
)

// maxRecord bounds what one session may take, in bytes of JSON; its tokens count apart.
const maxRecord = 256 << 10

func sessionKey(id string) string    { return sessionPrefix + id }
func tokensKey(id string) string     { return "session-tokens/" + id }
func cookieKey(hash [32]byte) string { return cookiePrefix + hex.EncodeToString(hash[:]) }
func cookiesOf(id string) string     { return "session-cookie/" + id + "/" }
func byParty(kind, issuer, of string) string {
	return "session-" + kind + "/" + party(issuer, of) + "/"
}
func signedOut(kind, issuer, of string) string {
	return "signed-out/" + kind + "/" + party(issuer, of)
}

// The kinds of parties: what may be signed out as a whole.
const (
	bySID     = "sid"
	bySubject = "subject"
	byBrowser = "browser"
	everybody = "all"
)

// party hashes a pair so that no other pair gives the same: the first part's length goes before it.
func party(issuer, of string) string {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(issuer))))
	h.Write([]byte(issuer))
	h.Write([]byte(of))
	return hex.EncodeToString(h.Sum(nil))
}

// link is what a cookie's record holds.
type link struct {
	Session string `json:"session"`
	Host    string `json:"host"`
}

// storedTokens are Tokens that can be encoded.
type storedTokens Tokens

// encode bounds what a record may hold.
func encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode session: %w", err)
	}
	if len(data) > maxRecord {
		return nil, fmt.Errorf("encode session: %d bytes, the limit is %d: have the provider send fewer claims or groups", len(data), maxRecord)
	}
	return data, nil
}

// errUnreadable is a kind of ErrNone: the record was sealed with a key that is gone, or not by us.
var errUnreadable = fmt.Errorf("%w: its record does not open", ErrNone)

// open decodes an item.
func (s *Sessions) open(item store.Item, v any) error {
	data, err := s.sealer.Open(item.Key, item.Value)
	if err != nil || decode(data, v) != nil {
		return errUnreadable
	}
	return nil
}

// decode keeps numbers as they were written.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(v)
}

// decodeSession makes a session from its JSON.
func decodeSession(data []byte, version store.Version) (*Session, error) {
	session := &Session{Version: uint64(version)}
	if err := decode(data, session); err != nil {
		return nil, err
	}
	if session.User.Groups == nil {
		session.User.Groups = []string{}
	}
	if session.User.Claims == nil {
		session.User.Claims = map[string]any{}
	}
	return session, nil
}

// read returns a live session without its tokens, from the store, and its JSON.
func (s *Sessions) read(ctx context.Context, id string) (*Session, []byte, error) {
	if !validID(id) {
		return nil, nil, ErrNone
	}
	item, err := s.store.Get(ctx, sessionKey(id))
	if err != nil {
		return nil, nil, absent("read a session", err)
	}
	return s.live(item)
}

// live returns the session of its record, and its JSON; ErrNone when it has expired or does not open.
func (s *Sessions) live(item store.Item) (*Session, []byte, error) {
	data, err := s.sealer.Open(item.Key, item.Value)
	if err != nil {
		return nil, nil, errUnreadable
	}
	session, err := decodeSession(data, item.Version)
	if err != nil {
		return nil, nil, errUnreadable
	}
	if !s.now().Before(session.Expires) {
		return nil, nil, ErrNone
	}
	return session, data, nil
}

// absent turns the store's error into the package's.
func absent(attempt string, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return ErrNone
	}
	return fmt.Errorf("%s: %w", attempt, err)
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// validID says whether the string has the form that newID gives.
func validID(id string) bool {
	_, ok := parseID(id)
	return ok
}

// parseID is the inverse of newID; nothing else has an ID's form.
func parseID(id string) (raw [16]byte, ok bool) {
	if len(id) != 32 {
		return raw, false
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return raw, false
		}
	}
	_, err := hex.Decode(raw[:], []byte(id))
	return raw, err == nil
}

// checkNew says why a sign-in cannot be stored.
func checkNew(in *Session, now time.Time) error {
	switch {
	case in.Issuer == "":
		return errors.New("create session: no issuer")
	case in.Subject == "":
		return errors.New("create session: no subject")
	case in.User.ID == "":
		return errors.New("create session: no user id")
	case !now.Before(in.Expires):
		return fmt.Errorf("create session: it expires at %s, which is past", in.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}
