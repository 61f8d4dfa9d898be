package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"doorward/authz/config"
	"doorward/authz/policy"

	"github.com/spf13/cobra"
)

// asked are the flags that describe a request and who makes it.
type asked struct {
	route                  string
	user, name             string
	unverified, anonymous  bool
	groups, claims         []string
	amr                    []string
	acr, authTime          string
	method, path, clientIP string
	headers                []string
}

// describing are the flags that an input from a file stands for.
var describing = []string{
	"user", "name", "unverified", "anonymous", "groups", "claim", "amr", "acr", "auth-time", "method", "path", "header", "client-ip",
}

func (q *asked) add(cmd *cobra.Command, path *string) {
	f := cmd.Flags()
	f.StringVarP(&q.route, "route", "r", "", "the name of the route that decides")
	f.StringVarP(&q.user, "user", "u", "", "who asks: an e-mail address, or an id")
	f.StringVar(&q.name, "name", "", "the user's name")
	f.BoolVar(&q.unverified, "unverified", false, "the provider has not verified the e-mail address")
	f.BoolVar(&q.anonymous, "anonymous", false, "there is no session")
	f.StringSliceVar(&q.groups, "groups", nil, "the user's groups, with commas between")
	f.StringArrayVar(&q.claims, "claim", nil, "a claim of the provider's, NAME=VALUE; the value is JSON or text; can be repeated")
	f.StringSliceVar(&q.amr, "amr", nil, "how the user has signed in, as pwd,otp")
	f.StringVar(&q.acr, "acr", "", "the authentication context class")
	f.StringVar(&q.authTime, "auth-time", "", "when the user has signed in: 5m (ago), a time, or Unix seconds; now by default")
	f.StringVarP(&q.method, "method", "X", "GET", "the method")
	f.StringVarP(&q.path, "path", "p", "/", "path and query")
	f.StringArrayVarP(&q.headers, "header", "H", nil, "a header of the request, NAME=VALUE or NAME: VALUE; can be repeated")
	f.StringVar(&q.clientIP, "client-ip", "192.0.2.1", "the client's address")
	_ = cmd.RegisterFlagCompletionFunc("route", completeRoutes(path))
	_ = cmd.RegisterFlagCompletionFunc("method", cobra.FixedCompletions([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, cobra.ShellCompDirectiveNoFileComp))
}

// completeRoutes offers the names of the routes in the configuration.
func completeRoutes(path *string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		c, err := config.Load(*path)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return routeNames(c), cobra.ShellCompDirectiveNoFileComp
	}
}

// described is the name of a flag that was given and describes the request; "" when there is none.
func (q *asked) described(cmd *cobra.Command) string {
	for _, name := range describing {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// input is the request that the flags describe.
func (q *asked) input(now time.Time) (*policy.Input, error) {
	switch {
	case q.route == "":
		return nil, errors.New("say which route decides: --route NAME")
	case q.user == "" && !q.anonymous:
		return nil, errors.New("say who asks: --user alice@example.com, or --anonymous for a request without a session")
	case q.user != "" && q.anonymous:
		return nil, errors.New("--user and --anonymous: a request has a session or it has none; give one of them")
	}
	var d policy.Document
	var err error
	if d.Request, err = q.request(); err != nil {
		return nil, err
	}
	if q.user != "" {
		if d.User, d.Session, err = q.person(now); err != nil {
			return nil, err
		}
	}
	in, err := d.Input()
	if err != nil {
		return nil, fmt.Errorf("the flags describe no request: %w", err)
	}
	_, query, _ := strings.Cut(q.path, "?")
	in.Request.Query, in.Request.Target = query, q.path
	return in, nil
}

func (q *asked) request() (r policy.RequestDocument, err error) {
	path, _, _ := strings.Cut(q.path, "?")
	if !strings.HasPrefix(path, "/") {
		return r, fmt.Errorf("--path %q: a path begins with a slash", q.path)
	}
	if _, err := netip.ParseAddr(q.clientIP); err != nil {
		return r, fmt.Errorf("--client-ip %q: it is an address, as 192.0.2.1", q.clientIP)
	}
	r = policy.RequestDocument{
		Method: strings.ToUpper(q.method), Scheme: "https", Path: path, Headers: map[string]string{}, ClientIP: q.clientIP,
	}
	for _, h := range q.headers {
		name, value, ok := strings.Cut(h, "=")
		if n, v, colon := strings.Cut(h, ":"); colon && (!ok || len(n) < len(name)) {
			name, value, ok = n, strings.TrimSpace(v), true
		}
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok || name == "" {
			return r, fmt.Errorf("--header %q: it is NAME=VALUE", h)
		}
		if before, twice := r.Headers[name]; twice {
			value = before + "," + value
		}
		r.Headers[name] = value
	}
	return r, nil
}

// noSession is the id of the session of a described user, which no live session has.
const noSession = "none"

// sessionLength is how long the session of a described user lasts.
const sessionLength = 8 * time.Hour

// person is a user with a session that has just begun.
func (q *asked) person(now time.Time) (*policy.UserDocument, *policy.SessionDocument, error) {
	u := &policy.UserDocument{ID: q.user, Name: q.name, Groups: q.groups, Claims: map[string]any{}}
	if strings.Contains(q.user, "@") {
		u.Email, u.EmailVerified = q.user, !q.unverified
	}
	for _, claim := range q.claims {
		name, text, ok := strings.Cut(claim, "=")
		if !ok || name == "" {
			return nil, nil, fmt.Errorf("--claim %q: it is NAME=VALUE", claim)
		}
		var value any
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&value); err != nil || decoder.More() {
			value = text
		}
		u.Claims[name] = value
	}
	s := &policy.SessionDocument{
		ID: noSession, Created: now.Unix(), Expires: now.Add(sessionLength).Unix(), AuthTime: now.Unix(), AMR: q.amr, ACR: q.acr,
	}
	if q.authTime != "" {
		var err error
		if s.AuthTime, err = parseTime(q.authTime, now); err != nil {
			return nil, nil, fmt.Errorf("--auth-time: %w", err)
		}
	}
	return u, s, nil
}
