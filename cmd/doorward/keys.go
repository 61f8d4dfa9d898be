package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"doorward/authz/config"
	"doorward/authz/token"
)

// keySettings is what a configuration says of the signing keys.
func keySettings(c *config.Config) token.Settings {
	return token.Settings{SigningKeyFile: c.JWT.SigningKeyFile, RotateEvery: time.Duration(c.JWT.RotateEvery)}
}

// keys is the state of the signing keys, with what hinders the program from keeping their file.
func (p *planes) keys() token.Report {
	report := p.ring.Report()
	p.mu.Lock()
	defer p.mu.Unlock()
	if report.Problem == "" {
		report.Problem = p.unkept
	} else if p.unkept != "" {
		report.Problem += "; " + p.unkept
	}
	return report
}

// keyHandlers are the keys' part of the admin API. An answer is the state of the keys afterwards, as token.Report in JSON; what is refused
// gets 409 with the reason.
func (p *planes) keyHandlers() map[string]http.Handler {
	answer := func(do func(*http.Request) error) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := do(r); err != nil {
				writeFault(w, err)
				return
			}
			writeAnswer(w, p.keys())
		})
	}
	return map[string]http.Handler{
		"GET /v1/keys":         answer(func(*http.Request) error { return nil }),
		"GET /v1/keys/jwks":    p.ring,
		"POST /v1/keys/rotate": answer(func(r *http.Request) error { return p.ring.Rotate(r.Context()) }),
		"POST /v1/keys/{kid}/retire": answer(func(r *http.Request) error {
			return p.ring.Retire(r.Context(), r.PathValue("kid"), r.URL.Query().Get("force") == "true")
		}),
	}
}

// keepEvery is how often the keys are looked at for what has changed. Looking costs next to nothing.
const keepEvery = time.Second

// keepKeys logs what becomes of the keys, and keeps jwt.jwks_file up to date, until ctx ends.
func (p *planes) keepKeys(ctx context.Context) error {
	k := keyKeeper{planes: p}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		k.note(p.ring.Report())
		k.keep(p.jwksFile(), p.ring.JWKS())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// keyKeeper remembers what it has logged and written.
type keyKeeper struct {
	*planes
	states  map[string]string // by kid
	problem string

	path    string // of the file that holds written
	written []byte
}

// note logs what has changed.
func (k *keyKeeper) note(report token.Report) {
	states := make(map[string]string, len(report.Keys))
	for _, key := range report.Keys {
		states[key.ID] = strings.TrimPrefix(states[key.ID]+", "+string(key.State), ", ") // one that signs again has two
	}
	for _, key := range report.Keys {
		if states[key.ID] != k.states[key.ID] {
			k.log.Info("signing key", "kid", key.ID, "state", states[key.ID], "source", key.Source, "signs", key.Signs.Format(time.RFC3339))
		}
	}
	for kid := range k.states {
		if states[kid] == "" {
			k.log.Info("signing key", "kid", kid, "state", "gone")
		}
	}
	k.states = states
	if report.Problem != k.problem {
		if k.problem = report.Problem; k.problem != "" {
			k.log.Error("signing keys need attention", "cause", k.problem)
		}
	}
}

// keep writes the file when it is not there with what it should have. It is tried until it works.
func (k *keyKeeper) keep(path string, set []byte) {
	var err error
	if _, missing := os.Stat(path); path != "" && (path != k.path || missing != nil || !bytes.Equal(set, k.written)) {
		k.path = ""
		if err = writeKeySet(path, set); err == nil {
			k.path, k.written = path, set
		} else {
			err = fmt.Errorf("keep jwt.jwks_file: %w", err)
		}
	}
	if k.cannotKeep(err) {
		k.log.Error("consumers that read the file will not know the next key", "cause", err)
	}
}

// writeKeySet replaces a file that is a key set, or empty, or not there.
func writeKeySet(path string, set []byte) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file; name another", path)
	}
	if err == nil && info.Size() > 0 {
		var there struct{ Keys []json.RawMessage }
		old, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if json.Unmarshal(old, &there) != nil || there.Keys == nil {
			return fmt.Errorf("%s holds something else than a key set; remove it or name another file", path)
		}
	}
	if err = replaceFile(path, set); errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%w: where it is a mount of its own, mount its directory instead", err)
	}
	return err
}

// cannotKeep notes why the file could not be written, and says whether that is news.
func (p *planes) cannotKeep(err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.unkept
	p.unkept = ""
	if err != nil {
		p.unkept = err.Error()
	}
	return p.unkept != "" && p.unkept != before
}

// jwksFile is where the keys are kept for consumers that read a file, or "".
func (p *planes) jwksFile() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loaded.JWT.JWKSFile
}
