package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"doorward/authz/admin"
	"doorward/authz/bearer"
)

// tokenHandlers are the service tokens' part of the admin API: GET /v1/tokens, POST /v1/tokens with name, route, group and life (a Go duration), and
// POST /v1/tokens/{name}/revoke. What is refused gets 409 with the reason.
func (p *planes) tokenHandlers() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /v1/tokens":                http.HandlerFunc(p.listTokens),
		"POST /v1/tokens":               http.HandlerFunc(p.createToken),
		"POST /v1/tokens/{name}/revoke": http.HandlerFunc(p.revokeToken),
	}
}

func (p *planes) listTokens(w http.ResponseWriter, r *http.Request) {
	list, err := p.bearer.Service.List(r.Context())
	if err != nil {
		writeFault(w, err)
		return
	}
	writeAnswer(w, tokenList{list})
}

// tokenList is an answer of the admin API.
type tokenList struct {
	Tokens []bearer.ServiceToken `json:"tokens"`
}

// newToken is the answer that has a new token: the only one that ever does.
type newToken struct {
	Token string `json:"token"`
}

func (p *planes) createToken(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	life, err := time.ParseDuration(q.Get("life"))
	if err != nil {
		admin.WriteRefusal(w, http.StatusBadRequest, errors.New("life must be a duration"))
		return
	}
	if err := p.takeServiceTokens(q["route"]); err != nil {
		admin.WriteRefusal(w, http.StatusConflict, err)
		return
	}
	token, err := p.bearer.Service.Create(r.Context(), bearer.Request{Name: q.Get("name"), Routes: q["route"], Groups: q["group"], Life: life})
	if err != nil {
		writeFault(w, err)
		return
	}
	p.log.Info("service token created by the operator", "by", admin.Caller(r.Context()), "name", q.Get("name"), "routes", q["route"], "groups", q["group"], "life", life.String())
	writeAnswer(w, newToken{token})
}

func (p *planes) revokeToken(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if err := p.bearer.Service.Revoke(r.Context(), name); err != nil {
		writeFault(w, err)
		return
	}
	p.log.Info("service token revoked by the operator", "by", admin.Caller(r.Context()), "name", name)
	writeAnswer(w, struct{}{})
}

// takeServiceTokens says which of the routes does not, or is not there.
func (p *planes) takeServiceTokens(names []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range names {
		if r, there := p.index.Route(name); !there {
			return fmt.Errorf("there is no route %q", name)
		} else if r.Bearer == nil || !r.Bearer.ServiceTokens {
			return fmt.Errorf("the route %q takes no service tokens: set bearer: {service_tokens: true} on it", name)
		}
	}
	return nil
}
