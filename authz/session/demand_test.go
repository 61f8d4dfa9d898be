package session

import (
	"net/url"
	"reflect"
	"testing"
	"time"
)

func TestDemands(t *testing.T) {
	now := time.Unix(10_000, 0)
	fresh := &Session{Provider: "main", AuthTime: now.Add(-10 * time.Minute), ACR: "gold"}
	silent := &Session{Provider: "main"}
	for _, row := range []struct {
		demand Demand
		s      *Session
		want   string
	}{
		{Demand{}, silent, ""},
		{Demand{Providers: []string{"partners", "main"}, MaxAge: 10 * time.Minute, ACR: []string{"silver", "gold"}}, fresh, ""},
		{Demand{Providers: []string{"partners"}}, fresh, "the session is of the provider main"},
		{Demand{MaxAge: 10*time.Minute - time.Second}, fresh, "the provider asked for credentials longer ago than 9m59s"},
		{Demand{MaxAge: time.Hour}, silent, "the provider did not say when it asked for credentials (auth_time)"},
		{Demand{ACR: []string{"platinum"}}, fresh, `the authentication class "gold" is none of those asked for`},
		{Demand{ACR: []string{"platinum"}}, silent, `the authentication class "" is none of those asked for`},
	} {
		if got := row.demand.Unmet(row.s, now); got != row.want {
			t.Errorf("%+v of %+v: got %q, want %q", row.demand, row.s, got, row.want)
		}
	}
}

func TestDemandsInAQuery(t *testing.T) {
	for _, d := range []Demand{{}, {Providers: []string{"a", "b"}}, {MaxAge: 90 * time.Second}, {Providers: []string{"a"}, MaxAge: time.Hour, ACR: []string{"urn:a?b&c", "x"}}} {
		q := url.Values{"return": {"/x"}}
		d.AddTo(q)
		sent, err := url.ParseQuery(q.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if got := DemandOf(sent); !reflect.DeepEqual(got, d) {
			t.Errorf("%s is read as %+v, want %+v", q.Encode(), got, d)
		}
	}
	for _, text := range []string{"max_age=-1", "max_age=x", "max_age=99999999999", "max_age=1.5"} {
		q, _ := url.ParseQuery(text)
		if got := DemandOf(q); !reflect.DeepEqual(got, Demand{}) {
			t.Errorf("%s is read as %+v", text, got)
		}
	}
	if got := DemandOf(url.Values{"idp": make([]string, maxDemands+1)}); got.Providers != nil {
		t.Errorf("%d providers are read", len(got.Providers))
	}
}
