package token

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is what a key is for at a moment.
type State string

// The states, in the order in which a key passes through them.
const (
	Next    State = "next"    // published, not signing
	Active  State = "active"  // signs
	Retired State = "retired" // published for what it signed
)

// KeyInfo is what anybody may know of a key.
type KeyInfo struct {
	ID        string    `json:"kid"`
	State     State     `json:"state"`
	Source    string    `json:"source"`           // "generated", or "file" for one of signing_key_file
	Published time.Time `json:"published"`        // since when it is in the JWKS
	Signs     time.Time `json:"signs"`            // since or from when
	Trusted   time.Time `json:"trusted"`          // since or from when every consumer has it; after Signs only for a key that took the place of a withdrawn one
	Retired   time.Time `json:"retired,omitzero"` // when another one signs in its place, if that is known
	Gone      time.Time `json:"gone,omitzero"`    // when it may leave the JWKS, if that is known; it does within minutes
}

// Report is the state of the keys.
type Report struct {
	Keys    []KeyInfo `json:"keys"`             // that are published, in the order in which they sign
	Rotates time.Time `json:"rotates,omitzero"` // when another key signs, if that is known
	Problem string    `json:"problem,omitempty"`
}

// Report returns the state of the keys. It has no private parts.
func (r *Ring) Report() Report {
	now := r.config.Now().Round(0).UTC()
	rec, source := r.at(now).record, r.source.Load()
	var report Report
	active := activeAt(rec.keys, now)
	for i := range rec.keys {
		report.Keys = append(report.Keys, r.info(rec, i, active))
	}
	if next := pending(rec.keys, now); next != nil {
		report.Rotates = next.signsFrom
	} else if due := r.due(rec, source, now); !due.IsZero() {
		report.Rotates = later(due, now).Add(r.config.lead())
	}
	report.Problem = r.problem(rec, source, now)
	return report
}

// problem says what an operator should look after.
func (r *Ring) problem(rec record, source *source, now time.Time) string {
	var problems []string
	if fault := r.fault.Load(); fault != nil {
		problems = append(problems, *fault)
	}
	if source.file != nil && rec.withdrew(source.file.id) {
		problems = append(problems, fmt.Sprintf("%s holds the key %s, which was retired: put another one there", source.SigningKeyFile, source.file.id))
	}
	if next := pending(rec.keys, now); next != nil && r.early(next, now) {
		problems = append(problems, fmt.Sprintf("%s was published at %s, which is still to come: the clock was wrong then or is wrong now; "+
			"once it is right, doorward key rotate publishes the key anew", next.id, stamp(next.created)))
	}
	return strings.Join(problems, "; ")
}

func (r *Ring) info(rec record, i, active int) KeyInfo {
	keys, k := rec.keys, rec.keys[i]
	info := KeyInfo{ID: k.id, State: Active, Source: "generated", Published: k.created, Signs: k.signsFrom, Trusted: r.trusted(k), Gone: gone(keys, i)}
	if k.file {
		info.Source = "file"
	}
	emergency := func(w withdrawal) bool { return w.at.Equal(k.created) }
	if k.signsFrom.Equal(k.created) && !slices.ContainsFunc(rec.withdrawn, emergency) {
		info.Trusted = k.created // the first of all
	}
	switch {
	case i < active:
		info.State = Retired
	case i > active:
		info.State = Next
	}
	if i+1 < len(keys) {
		info.Retired = keys[i+1].signsFrom
	}
	return info
}
