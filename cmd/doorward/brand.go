package main

import (
	"fmt"

	"doorward/authz/config"
	"doorward/authz/web"
	"doorward/xds"
)

// brand is whose pages a configuration's are.
func brand(c *config.Config) web.Brand {
	return web.Brand{Name: c.Brand.Name, Logo: c.Brand.Logo(), Support: c.Brand.Support}
}

// edgePage makes the pages that Envoy shows by itself, also when Doorward does not answer. They are without the logo, because they are part of
// Envoy's listeners.
func edgePage(c *config.Config) (func(xds.PageText) xds.Page, error) {
	pages, err := web.New(web.Brand{Name: c.Brand.Name, Support: c.Brand.Support})
	if err != nil {
		return nil, fmt.Errorf("%s: brand: %w", c.Path, err)
	}
	return func(t xds.PageText) xds.Page {
		p := pages.Error(web.Error{Status: t.Status, Title: t.Title, Message: t.Message, Remedy: t.Remedy})
		return xds.Page{Body: string(p.Body), Header: p.Header}
	}, nil
}
