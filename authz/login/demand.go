package login

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"doorward/authz/config"
	"doorward/authz/web"

	"golang.org/x/oauth2"
)

// parameters ask the provider for what the route demands (OpenID Connect Core 1.0, section 3.1.2.1).
func (a *attempt) parameters() (options []oauth2.AuthCodeOption) {
	if a.Demand.MaxAge > 0 {
		options = append(options, oauth2.SetAuthURLParam("max_age", strconv.Itoa(int(a.Demand.MaxAge/time.Second))))
	}
	if len(a.Demand.ACR) > 0 {
		options = append(options, oauth2.SetAuthURLParam("acr_values", strings.Join(a.Demand.ACR, " ")))
	}
	return options
}

// chosen is the parameter by which a person says which provider to sign in with.
const chosen = "provider"

// choose begins a sign-in with the provider that the person chose, or with the only one that there is; of several it shows the choice.
func (h *Handler) choose(v *visit, a attempt) {
	var possible config.IDPs
	for _, idp := range v.IDPs {
		if len(a.Demand.Providers) == 0 || slices.Contains(a.Demand.Providers, idp.Name) {
			possible = append(possible, idp)
		}
	}
	if idp, ok := possible.Find(v.query(chosen)); ok {
		h.start(v, idp, a)
		return
	}
	switch len(possible) {
	case 0:
		h.noProvider(v)
	case 1:
		h.start(v, possible[0], a)
	default:
		h.showChoice(v, possible)
	}
}

// showChoice lets the person choose among providers. The choice comes back to this address.
func (h *Handler) showChoice(v *visit, possible config.IDPs) {
	page := web.Choose{Host: v.host}
	q := v.r.URL.Query()
	for _, idp := range possible {
		q.Set(chosen, idp.Name)
		label := idp.Label
		if label == "" {
			label = idp.Issuer.Hostname()
		}
		page.Providers = append(page.Providers, web.Provider{Label: label, URL: v.Prefix + "/sign_in?" + q.Encode()})
	}
	v.show(h.Pages.Choose(page))
}

// noProvider is for a demand that the configuration no longer has a provider for.
func (h *Handler) noProvider(v *visit) {
	h.fail(v, nil, web.Error{Status: http.StatusBadRequest, Title: "This sign-in cannot go on",
		Message: "The sign-in service that was asked for is not in use here.", Remedy: "Open the application again.", RetryURL: v.at("/")})
}
