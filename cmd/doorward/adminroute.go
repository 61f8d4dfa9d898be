package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"

	"doorward/authz/admin"
	"doorward/xds"
)

// adminOr serves the admin API to requests that came by a route to it, and everything else by next. That a route was taken says Envoy, which lets no
// client say it; that authz let somebody through says authz itself, by the identity JWT that it has minted for the route's host: without a good one
// there is no answer.
func (p *planes) adminOr(api, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Header.Get(xds.HeaderAdmin)
		if name == "" {
			next.ServeHTTP(w, r)
			return
		}
		who, origin, err := p.routedCaller(name, r)
		if err != nil {
			p.log.Warn("a request to the admin API was refused", "route", name, "host", r.Host, "cause", err.Error())
			admin.WriteRefusal(w, http.StatusForbidden, errors.New("the admin API does not know who asks"))
			return
		}
		admin.Routed(w, r, api, who, origin)
	})
}

// routedCaller is who asks by a route, and the route's origin.
func (p *planes) routedCaller(name string, r *http.Request) (who, origin string, err error) {
	p.mu.Lock()
	route, there := p.index.Route(name)
	header := p.loaded.JWT.Header
	p.mu.Unlock()
	if !there || !route.Admin() {
		return "", "", fmt.Errorf("there is no route %q to it", name)
	}
	host, tokens := hostOf(r), r.Header.Values(header)
	if host != route.Host() || len(tokens) != 1 {
		return "", "", fmt.Errorf("it is for host %q and has %d tokens", host, len(tokens))
	}
	identity, err := p.ring.Verify(tokens[0], route.Host())
	return cmp.Or(identity.Email, identity.Subject), route.From.Origin(), err
}
