package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"testing"
)

// TestNobodyGetsAnothersThroughEnvoy has 64 people ask at once over one connection, and each upstream request is held against who asked.
func TestNobodyGetsAnothersThroughEnvoy(t *testing.T) {
	path := externalParts(t)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get(assertion))
	}))
	defer upstream.Close()
	at, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(at.Port())
	if err != nil {
		t.Fatal(err)
	}
	f := &front{name: "demo", as: edge}
	f.start(t, path, port)
	var everybody sync.WaitGroup
	for i := range 64 {
		everybody.Add(1)
		go func() {
			defer everybody.Done()
			for range 20 {
				if err := f.askAs(t, i); err != nil {
					t.Errorf("user-%d: %v", i, err)
					return
				}
			}
		}()
	}
	everybody.Wait()
}

// askAs asks with the session of user i.
func (f *front) askAs(t *testing.T, i int) error {
	req, err := f.request(i)
	if err != nil {
		return err
	}
	res, err := f.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	jwt, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		return fmt.Errorf("%s %v", res.Status, err)
	}
	user := fmt.Sprintf("user-%d", i)
	for claim, want := range map[string]string{"sub": user, "email": user + "@example.com", "preferred_username": user, "role": "Admin"} {
		if got := claims(t, string(jwt))[claim]; got != want {
			return fmt.Errorf("the upstream got %s %v, want %s", claim, got, want)
		}
	}
	return nil
}
