package policy

import (
	"maps"
	"reflect"
	"slices"
)

// comparison is one part of two decisions, in the words of the rules.
type comparison struct {
	name          string
	matters, same bool // matters says whether a difference has an effect
}

// compare holds every part of two decisions against each other.
func (d *Decision) compare(other *Decision) []comparison {
	pass, stop := d.Allow && other.Allow, !d.Allow && !other.Allow
	return []comparison{
		{"error", true, (d.Err == nil) == (other.Err == nil)},
		{"allow", true, d.Allow == other.Allow},
		{"deny", true, slices.Equal(d.Reasons, other.Reasons)},
		{"claims", pass, d.ClaimsDigest == other.ClaimsDigest},
		{"headers", pass, maps.Equal(d.Headers, other.Headers)},
		{"remove_headers", pass, sameNames(d.RemoveHeaders, other.RemoveHeaders)},
		{"response_headers", pass || stop, maps.Equal(d.ResponseHeaders, other.ResponseHeaders)},
		{"query", pass, slices.Equal(d.SetQuery, other.SetQuery) && sameNames(d.RemoveQuery, other.RemoveQuery)},
		{"redirect", stop, d.Redirect == other.Redirect},
		{"status", stop, d.Status == other.Status},
		{"body", stop, d.Body == other.Body && d.BodyType == other.BodyType},
		{"metadata", pass || stop, len(d.Metadata) == 0 && len(other.Metadata) == 0 || reflect.DeepEqual(d.Metadata, other.Metadata)},
	}
}

// Differences names the parts in which two decisions have another effect, in the words of the rules: allow, deny, claims, headers, ... and
// error. What a denial does not use, as claims, is not compared when both deny, and what only a denial uses not when both allow. It is empty
// for decisions that have the same effect.
func (d *Decision) Differences(other *Decision) (parts []string) {
	for _, c := range d.compare(other) {
		if c.matters && !c.same {
			parts = append(parts, c.name)
		}
	}
	return parts
}

// Same says whether two decisions are the same in every part, also in those that have no effect.
func (d *Decision) Same(other *Decision) bool {
	return !slices.ContainsFunc(d.compare(other), func(c comparison) bool { return !c.same })
}

func sameNames(one, other []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(one)), slices.Sorted(slices.Values(other)))
}
