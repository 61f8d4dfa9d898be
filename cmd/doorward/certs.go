package main

import (
	"crypto/x509"
	"encoding/pem"
	"time"
)

// certificateState is the certificate that a host has.
type certificateState struct {
	Host      string    `json:"host"`
	Source    string    `json:"source"` // "local CA", or the file
	Names     []string  `json:"names,omitempty"`
	Issuer    string    `json:"issuer,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	Problem   string    `json:"problem,omitempty"` // why there is none, or what is wrong with it
}

// certificateStates are those of all hosts, by host.
func (p *planes) certificateStates() []certificateState {
	p.turn.Lock()
	source := p.certificates
	hosts := p.index.Hosts()
	p.turn.Unlock()
	states := make([]certificateState, 0, len(hosts))
	for _, host := range hosts {
		s := certificateState{Host: host, Source: source.Of(host)}
		chain, _, err := source.Certificate(host)
		if err == nil {
			err = s.read(chain)
		}
		if err != nil {
			s.Problem = err.Error()
		} else if time.Now().After(s.NotAfter) {
			s.Problem = "expired"
		}
		states = append(states, s)
	}
	return states
}

// read notes what a chain's first certificate says.
func (s *certificateState) read(chain []byte) error {
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil // proven when it was loaded
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	s.Names, s.Issuer, s.NotBefore, s.NotAfter = leaf.DNSNames, leaf.Issuer.String(), leaf.NotBefore, leaf.NotAfter
	return nil
}
