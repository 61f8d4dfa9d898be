package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"doorward/authz/store"
)

const (
	prefix = "node/" // of the records' keys in the store
	// MinLife and MaxLife bound how long a certificate of a node may be good.
	MinLife = 5 * time.Second
	MaxLife = 90 * 24 * time.Hour
	// DefaultLife is short enough that a forgotten copy of a key ends by itself, and long enough for a night without Doorward.
	DefaultLife = 24 * time.Hour
	// remembered is how long a record is kept, for lists, after its last certificate has ended.
	remembered = 30 * 24 * time.Hour
	// renewEvery is how often a node may renew: each time is a write to the disk.
	renewEvery = time.Second
)

// Record is what is known of a node.
type Record struct {
	Name       string        `json:"name"`
	Group      string        `json:"group"`
	Generation uint64        `json:"generation"`       // grows when the node is certified by the operator; certificates of earlier ones are good for nothing
	Issued     time.Time     `json:"issued"`           // its newest certificate
	Expires    time.Time     `json:"expires"`          // of the same
	Life       time.Duration `json:"life"`             // of a certificate, in nanoseconds
	Revoked    time.Time     `json:"revoked,omitzero"` // zero for never
}

// fault says why a certificate of a generation is good for nothing now; "" when it is good.
func (r Record) fault(generation uint64, now time.Time) string {
	switch {
	case !r.Revoked.IsZero():
		return "is revoked"
	case r.Generation != generation:
		return "has been issued anew"
	case !now.Before(r.Expires):
		return "has not renewed its certificate, which has ended"
	}
	return ""
}

// Errors that callers tell apart.
var (
	ErrUnknown = errors.New("there is no such node")
	ErrRefused = errors.New("refused")
	errTooSoon = errors.New("the certificate is new: wait a second")
)

// Certify makes a node one of ours, or makes one that there is another machine's: what the name had before ends. It returns the certificate, as PEM,
// for the key that signed the request (PKCS #10, DER).
func (n *Nodes) Certify(ctx context.Context, name, group string, life time.Duration, request []byte) (Record, []byte, error) {
	if err := CheckName(name); err != nil {
		return Record{}, nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if life < MinLife || life > MaxLife {
		return Record{}, nil, fmt.Errorf("%w: a certificate of a node lives from %s to %s, not %s", ErrRefused, MinLife, MaxLife, life)
	}
	return n.issue(ctx, name, request, func(r *Record) error {
		r.Name, r.Group, r.Life, r.Revoked = name, group, life, time.Time{}
		r.Generation++
		return nil
	})
}

// Renew gives a connected node its next certificate, for the key that signed the request.
func (n *Nodes) Renew(ctx context.Context, p *Peer, request []byte) (Record, []byte, error) {
	return n.issue(ctx, p.Name, request, func(r *Record) error {
		if fault := r.fault(p.generation, n.now()); fault != "" {
			return fmt.Errorf("%w: node %q %s", ErrRefused, p.Name, fault)
		}
		if n.now().Sub(r.Issued) < renewEvery {
			return errTooSoon
		}
		return nil
	})
}

// Revoke ends a node: what it has open is closed at once, and nothing is opened with its certificates any more.
func (n *Nodes) Revoke(ctx context.Context, name string) error {
	_, err := n.change(ctx, name, func(r *Record) error {
		if r.Generation == 0 {
			return fmt.Errorf("%w: %q", ErrUnknown, name)
		}
		r.Revoked = n.now().UTC()
		return nil
	})
	return err
}

// List returns all records, by name.
func (n *Nodes) List(ctx context.Context) ([]Record, error) {
	list := []Record{}
	for item, err := range store.All(ctx, n.store, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list the nodes: %w", err)
		}
		r, err := decode(item)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

func (n *Nodes) issue(ctx context.Context, name string, request []byte, edit func(*Record) error) (Record, []byte, error) {
	key, err := keyOf(request)
	if err != nil {
		return Record{}, nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	r, err := n.change(ctx, name, func(r *Record) error {
		if err := edit(r); err != nil {
			return err
		}
		now := n.now().UTC().Truncate(time.Second) // as certificates have it
		r.Issued, r.Expires = now, now.Add(r.Life)
		return nil
	})
	if err != nil {
		return Record{}, nil, err
	}
	chain, err := n.ca.Issue(x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: []string{"Doorward"}},
		URIs:    []*url.URL{identity(r)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key, r.Issued, r.Expires)
	return r, chain, err
}

// keyOf takes keys of one kind only, whose strength need not be judged.
func keyOf(request []byte) (*ecdsa.PublicKey, error) {
	parsed, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, fmt.Errorf("the certificate request cannot be read: %w", err)
	}
	key, ok := parsed.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the certificate request is for a key that is not ECDSA P-256")
	}
	if err := parsed.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the certificate request is not signed by its key: %w", err)
	}
	return key, nil
}

// change edits the record of a name, an empty one when there is none yet.
func (n *Nodes) change(ctx context.Context, name string, edit func(*Record) error) (Record, error) {
	for {
		r, version, err := n.read(ctx, name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return Record{}, err
		}
		if err := edit(&r); err != nil {
			return Record{}, err
		}
		text, err := json.Marshal(r)
		if err != nil {
			return Record{}, err
		}
		_, err = n.store.Apply(ctx, store.Op{Key: prefix + name, Value: text, Expires: r.Expires.Add(remembered), Expect: version})
		if errors.Is(err, store.ErrConflict) {
			continue // somebody else wrote it meanwhile: edit what they wrote
		}
		if err != nil {
			return Record{}, fmt.Errorf("write the record of node %q: %w", name, err)
		}
		return r, nil
	}
}

func (n *Nodes) read(ctx context.Context, name string) (Record, store.Version, error) {
	item, err := n.store.Get(ctx, prefix+name)
	if err != nil {
		return Record{}, store.Absent, fmt.Errorf("read the record of node %q: %w", name, err)
	}
	r, err := decode(item)
	return r, item.Version, err
}

func decode(item store.Item) (Record, error) {
	var r Record
	if err := json.Unmarshal(item.Value, &r); err != nil {
		return Record{}, fmt.Errorf("the record %s cannot be read: %w", item.Key, err)
	}
	return r, nil
}
