package main

import (
	"doorward/authz/config"
	"doorward/authz/web"
)

// brand is whose pages a configuration's are.
func brand(c *config.Config) web.Brand {
	return web.Brand{Name: c.Brand.Name, Logo: c.Brand.Logo(), Support: c.Brand.Support}
}
