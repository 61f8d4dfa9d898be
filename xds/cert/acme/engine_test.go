package acme

import (
	"crypto/x509"
	"testing"
	"time"
)

// TestWhenACertificateIsRenewed: with a third of its life left, or when the server wants it, if that is sooner.
func TestWhenACertificateIsRenewed(t *testing.T) {
	begun := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	leaf := &x509.Certificate{NotBefore: begun, NotAfter: begun.Add(90*24*time.Hour - time.Second)}
	third := begun.Add(60 * 24 * time.Hour)
	for name, row := range map[string]struct {
		meta string
		want time.Time
	}{
		"nothing is kept beside it": {"", third},
		"no JSON":                   {"{", third},
		"no renewal info":           {`{"issuer_data": {"url": "x"}}`, third},
		"no time chosen":            {`{"issuer_data": {"renewal_info": {"suggestedWindow": {}}}}`, third},
		"sooner":                    {`{"issuer_data": {"renewal_info": {"_selectedTime": "2026-01-15T00:00:00Z"}}}`, begun.Add(14 * 24 * time.Hour)},
		"later":                     {`{"issuer_data": {"renewal_info": {"_selectedTime": "2026-03-20T00:00:00Z"}}}`, third},
	} {
		if got := renewal(leaf, []byte(row.meta)); !got.Equal(row.want) {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}

// TestASpread is no less than half of the time and no more than all of it, and not always the same.
func TestASpread(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for range 100 {
		d := spread(time.Minute)
		if d < 30*time.Second || d > time.Minute {
			t.Fatalf("spread = %v", d)
		}
		seen[d] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different times of 100", len(seen))
	}
}
