package token

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Retire withdraws a key at once, for when it has leaked: it signs nothing more and leaves the JWKS. When it was the active one, the key
// that waits takes its place, or else a new one. When its file is what gives the keys, the file is not followed until it holds another one.
//
// This breaks what an ordinary rotation does not: see harm. When it does, the error is a Refusal that says what would break, unless force
// is set.
func (r *Ring) Retire(ctx context.Context, id string, force bool) error {
	return r.update(ctx, func(rec record, now time.Time) (record, error) {
		rec.keys = living(rec.keys, now)
		i := slices.IndexFunc(rec.keys, func(k *key) bool { return k.id == id })
		if i < 0 {
			return rec, Refusal(fmt.Sprintf("retire signing key: there is none with the id %q; doorward key list shows those that there are", id))
		}
		if harm := r.harm(rec.keys, i, now); harm != "" && !force {
			return rec, Refusal("retire signing key: " + harm + "\nuse --force when the key has leaked; otherwise doorward key rotate replaces it without breaking anything")
		}
		return r.withdraw(rec, id, now)
	})
}

// harm says what breaks when a key is withdrawn now; "" for nothing.
func (r *Ring) harm(keys []*key, i int, now time.Time) string {
	active := activeAt(keys, now)
	k := keys[i]
	if i > active {
		return ""
	}
	if i < active {
		end := keys[i+1].signsFrom.Add(r.config.Lifetime)
		if !now.Before(end) {
			return ""
		}
		return fmt.Sprintf("tokens that %s signed are good until %s; applications would refuse them once they fetch the JWKS again", k.id, stamp(end))
	}
	published, knows := "would be published only now", now.Add(r.config.lead())
	if next := successor(keys, active, k.id); next != nil {
		published, knows = fmt.Sprintf("is published only since %s", stamp(next.created)), r.trusted(next)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s signs now:\n", k.id)
	fmt.Fprintf(&b, "- tokens that it signed are good for up to %s; applications would refuse them once they fetch the JWKS again\n", r.config.Lifetime)
	fmt.Fprintf(&b, "- its successor %s; applications that cache the JWKS may refuse all new tokens until %s, or until they are restarted\n", published, stamp(knows))
	fmt.Fprintf(&b, "- applications that cache the JWKS would accept tokens signed by it until then all the same")
	return b.String()
}

// trusted is when no consumer can hold a key set without the key any more.
func (r *Ring) trusted(k *key) time.Time { return k.created.Add(r.config.lead()) }

// successor is the first key after the active one that is not the one withdrawn, or nil.
func successor(keys []*key, active int, withdrawn string) *key {
	for _, k := range keys[active+1:] {
		if k.id != withdrawn {
			return k
		}
	}
	return nil
}

// withdraw takes a key out of the record and remembers its id.
func (r *Ring) withdraw(rec record, id string, now time.Time) (record, error) {
	active := activeAt(rec.keys, now)
	signs, next := rec.keys[active].id == id, successor(rec.keys, active, id)
	rec.keys = filter(rec.keys, func(_ int, k *key) bool { return k.id != id })
	rec.withdrawn = append(slices.Clone(rec.withdrawn), withdrawal{id, now})
	switch {
	case !signs:
		return rec, nil
	case next != nil:
		rec.keys[slices.Index(rec.keys, next)] = next.from(next.created, now)
		return rec, nil
	}
	fresh, err := generateKey()
	if err != nil {
		return rec, err
	}
	rec.keys = append(rec.keys, fresh.from(now, now))
	return rec, nil
}

// withdrew says whether an operator withdrew the key.
func (r record) withdrew(id string) bool {
	return slices.ContainsFunc(r.withdrawn, func(w withdrawal) bool { return w.id == id })
}
