package bearer

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// until waits for the keys that are fetched in the background.
func (o *office) until(holds func() bool) {
	o.t.Helper()
	for end := time.Now().Add(5 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			o.t.Fatal("not within five seconds")
		}
	}
}

// TestStrangersDoNotDriveFetches: however many unknown keys are named, the issuer is asked once in ten seconds.
func TestStrangersDoNotDriveFetches(t *testing.T) {
	a := newAuthority(t, public("ec", ecKey().Public()))
	o := newOffice(t, of(t, a, "ci", "doorward"))
	o.until(func() bool { return o.set.Load().byName["ci"].keys.current.Load() != nil })
	for turn := range 5 {
		for n := range 200 {
			if _, err := o.find(sign(ecKey(), es256(claim{"kid": fmt.Sprint("k", turn, n)}), a.claims())); !errors.Is(err, ErrInvalid) {
				t.Fatalf("%v", err)
			}
		}
		if got, most := a.asked.Load(), int64(turn+1); got > most {
			t.Fatalf("the keys were fetched %d times in turn %d", got, turn)
		}
		o.ahead.Add(int64(unknownEvery))
	}
	if got := a.asked.Load(); got < 4 {
		t.Errorf("the keys were fetched %d times: an unknown key fetches none", got)
	}
}

func TestNewKeyIsFetched(t *testing.T) {
	a := newAuthority(t, public("ec", ecKey().Public()))
	o := newOffice(t, of(t, a, "ci", "doorward"))
	if _, err := o.find(sign(ecKey(), es256(), a.claims())); err != nil {
		t.Fatal(err)
	}
	a.set(false, public("ec", ecKey().Public()), public("next", rsaKey().Public()))
	o.ahead.Add(int64(unknownEvery))
	if _, err := o.find(sign(rsaKey(), header("RS256", "next"), a.claims())); err != nil {
		t.Error(err)
	}
}

// TestWithdrawnKey: what it has signed is refused once the keys were fetched, also what was verified before.
func TestWithdrawnKey(t *testing.T) {
	a := newAuthority(t, public("ec", ecKey().Public()))
	o := newOffice(t, of(t, a, "ci", "doorward"))
	token := sign(ecKey(), es256(), a.claims())
	if _, err := o.find(token); err != nil {
		t.Fatal(err)
	}
	a.set(false, public("next", rsaKey().Public()))
	o.ahead.Add(int64(keysFresh))
	if _, err := o.find(token); err != nil {
		t.Errorf("the request that has the keys fetched waits for nothing: %v", err)
	}
	o.until(func() bool { _, err := o.find(token); return errors.Is(err, ErrInvalid) })
}

// TestIssuerDown: what is known stays; where nothing was ever known, it is not the token that is at fault.
func TestIssuerDown(t *testing.T) {
	a := newAuthority(t, public("ec", ecKey().Public()))
	o := newOffice(t, of(t, a, "ci", "doorward"))
	if _, err := o.find(sign(ecKey(), es256(), a.claims())); err != nil {
		t.Fatal(err)
	}
	a.set(true)
	for range 3 {
		o.ahead.Add(int64(keysFresh))
		token := sign(ecKey(), es256(), a.claims(claim{"exp": o.now().Add(time.Hour).Unix()}))
		if _, err := o.find(token); err != nil {
			t.Errorf("with the issuer down: %v", err)
		}
	}
	fresh := newOffice(t, of(t, a, "ci", "doorward"))
	token := sign(ecKey(), es256(), a.claims())
	if _, err := fresh.find(token); err == nil || errors.Is(err, ErrInvalid) {
		t.Errorf("an issuer that was never there: %v", err)
	}
	a.set(false, public("ec", ecKey().Public()))
	fresh.ahead.Add(int64(longestRetry))
	if _, err := fresh.find(token); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

// TestSlowIssuer does not hold a request.
func TestSlowIssuer(t *testing.T) {
	a := newAuthority(t)
	a.mu.Lock() // nobody is answered
	defer a.mu.Unlock()
	o := newOffice(t, of(t, a, "ci", "doorward"))
	token := sign(ecKey(), es256(), a.claims())
	start := time.Now()
	if _, err := o.find(token); err == nil || errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took < keysWait || took > keysWait+2*time.Second {
		t.Errorf("it took %s, not %s", took, keysWait)
	}
}

func TestAnswersThatAreNoKeySet(t *testing.T) {
	for answer, want := range map[string]string{
		"":                             "the key set is no JSON object with keys",
		"[]":                           "the key set is no JSON object with keys",
		"{}":                           "the key set has no public key for signatures",
		`{"keys": [{"kty": "EC"}, 1]}`: "the key set has no public key for signatures",
		`{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}`: "the key set has no public key for signatures",
	} {
		if _, err := parseKeys([]byte(answer)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", answer, err, want)
		}
	}
}

// FuzzBearerToken holds that no text is a token but one that was signed, and that each other one is called invalid.
func FuzzBearerToken(f *testing.F) {
	a := newAuthority(f, public("ec", ecKey().Public()))
	o := newOffice(f, of(f, a, "ci", "doorward"))
	o.until(func() bool { return o.set.Load().byName["ci"].keys.current.Load() != nil })
	good := sign(ecKey(), es256(), a.claims())
	a.set(true)
	secret, _ := newSecret()
	for _, seed := range []string{good, good[:len(good)-1], secret, "e30.e30.", "..", "dw_", sign(nil, header("none", ""), a.claims()), "Bearer x", "eyJhbGciOiJub25lIn0.eyJpc3MiOm51bGx9."} {
		f.Add(seed)
	}
	finder := &Finder{Service: &ServiceTokens{Config: Config{Now: time.Now}}, Issuers: o.Issuers}
	finder.Service.known.Store(&table{})
	allowed := &Allowed{Route: "api", ServiceTokens: true, Issuers: []string{"ci"}}
	f.Fuzz(func(t *testing.T, token string) {
		found, err := finder.Find(t.Context(), token, allowed)
		switch {
		case token == good && err != nil:
			t.Errorf("the good token: %v", err)
		case token != good && (found != nil || !errors.Is(err, ErrInvalid)):
			t.Errorf("%q is %v, %v", token, found, err)
		}
	})
}
