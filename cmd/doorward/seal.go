package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"doorward/authz/session"
	"doorward/authz/store"

	"github.com/spf13/cobra"
)

const (
	// sealRest is how long an old sealing key opens after the file was written: longer than anything sealed lives that is in no record, as the state of
	// a sign-in under way.
	sealRest = 10 * time.Minute
	// sealEvery is how often it is looked whether an old key can go.
	sealEvery = time.Minute
)

func sealCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "seal",
		Short: "Rotate the key that seals sessions and signing keys at rest",
		Long: "Everything secret in the store is sealed with the key in seal.key of the data directory. A new key seals everything anew at\n" +
			"once; the old one is removed from the file ten minutes later, when nothing is left that it sealed.",
	}
	var running runningFlags
	rotate := &cobra.Command{
		Use:   "rotate",
		Short: "Put a new sealing key in the place of the present one",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := running.client()
			if err != nil {
				return err
			}
			var done struct {
				Resealed int `json:"resealed"`
			}
			if err := client.Post(cmd.Context(), "/v1/seal/rotate", nil, &done); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d records are sealed with the new key; the old one goes in %s\n", done.Resealed, sealRest)
			return err
		},
	}
	running.add(rotate)
	cmd.AddCommand(rotate)
	return cmd
}

// seal rotates the sealing key and removes old ones.
type seal struct {
	sealer *session.Sealer
	store  store.Store
	mu     sync.Mutex // one change of the file at a time
}

// rotate is POST /v1/seal/rotate.
func (s *seal) rotate(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.sealer.Rotate()
	done := 0
	if err == nil {
		done, _, err = s.sealer.Reseal(r.Context(), s.store)
	}
	if err != nil {
		writeFault(w, err)
		return
	}
	writeAnswer(w, map[string]any{"resealed": done})
}

// tidy seals anew what old keys sealed, and forgets them once they have rested. It says whether it did.
func (s *seal) tidy(ctx context.Context, now time.Time) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.sealer.Old() {
		return false, nil
	}
	_, left, err := s.sealer.Reseal(ctx, s.store)
	if err != nil || left > 0 {
		return false, err
	}
	changed, err := s.sealer.Changed()
	if err != nil || now.Sub(changed) < sealRest {
		return false, err
	}
	return true, s.sealer.Forget()
}

// keepSeal tidies until ctx ends.
func (p *planes) keepSeal(ctx context.Context) error {
	tick := time.NewTicker(sealEvery)
	defer tick.Stop()
	for {
		forgotten, err := p.seal.tidy(ctx, time.Now())
		if err != nil && ctx.Err() == nil {
			p.log.Error("an old sealing key cannot be removed", "cause", err)
		}
		if forgotten {
			p.log.Info("the old sealing key is removed")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
