package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Load reads, checks and completes the file at path. Every problem is reported at once: the error is a Problems. The dates of
// certificates are not among them: one that has expired must not keep the other hosts from being served (xds/cert warns). Pushed are routes
// beside those of the files.
func Load(path string, pushed ...Document) (*Config, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, Problems{{Position: Position{File: path}, Message: err.Error()}}
	}
	l := loader{files: newFiles()}
	c := new(Config)
	doc := l.open(abs, c)
	if doc == nil {
		return nil, l.err()
	}
	c.Path = abs
	l.paths(doc.place(), c)
	l.own(doc.place(), c)
	l.routesDir(doc.place(), c)
	l.pushed(c, pushed)
	for i := range c.IDP {
		l.clientSecret(provider(doc.place(), i), &c.IDP[i])
	}
	if c.AuthURL.IsZero() && !doc.place().has("auth_url") {
		c.AuthURL = onlyHost(c.Routes)
	}
	for i := range c.Routes {
		c.Routes[i].settle(c.AuthURL)
	}
	check := checker{report: &l.report, files: l.files, c: c, root: doc.place(), routes: l.routes}
	check.all()
	if err := l.err(); err != nil {
		return nil, err
	}
	c.root = edgeOf(doc)
	c.files, c.Checksum = l.files.names(), l.files.checksum(filepath.Dir(abs))
	return c, nil
}

// Files is everything that was read: the file, the routes directory and its files, the policies, each file that these name, and the
// directories between. Sorted absolute paths.
func (c *Config) Files() []string { return append([]string(nil), c.files...) }

// Hosts is every host that has a route, and the sign-in host, by name without port, with the URL of its origin.
func (c *Config) Hosts() map[string]URL {
	hosts := make(map[string]URL, len(c.Routes)+1)
	if !c.AuthURL.IsZero() {
		hosts[c.AuthURL.Hostname()] = c.AuthURL.origin()
	}
	for _, r := range c.Routes {
		hosts[r.Host()] = r.From.origin()
	}
	return hosts
}

// edgeOf is a document without its routes, which would take memory.
func edgeOf(doc *document) place {
	root := *doc.root
	root.Content = nil
	for i := 0; i+1 < len(doc.root.Content); i += 2 {
		if target(doc.root.Content[i]).Value != "routes" {
			root.Content = append(root.Content, doc.root.Content[i], doc.root.Content[i+1])
		}
	}
	return (&document{file: doc.file, root: &root}).place()
}

// loader reads the files of one configuration.
type loader struct {
	report
	files  *files
	routes []place // of Config.Routes, in the same order
}

// open reads, parses and decodes one YAML file. It returns nil when there is nothing to go on with.
func (l *loader) open(path string, out any) *document {
	l.order = append(l.order, path)
	data, err := l.files.file(path)
	if err != nil {
		l.note(Problem{Position: Position{File: path}, Message: strings.TrimPrefix(err.Error(), path+" ")})
		return nil
	}
	doc, problem := parse(path, data)
	if problem != nil {
		l.note(*problem)
		return nil
	}
	l.decode(doc, out)
	if doc.root.Kind != yaml.MappingNode {
		return nil // reported; everything else would follow from it
	}
	return doc
}

// paths completes the paths of the configuration itself: relative ones are relative to the file.
func (l *loader) paths(p place, c *Config) {
	dir := filepath.Dir(c.Path)
	if c.DataDir == "" {
		c.DataDir = "data"
	}
	resolve(dir, &c.DataDir, &c.SocketDir, &c.RoutesDir, &c.JWT.SigningKeyFile, &c.JWT.JWKSFile, &c.Brand.LogoFile,
		&c.Admin.CertFile, &c.Admin.KeyFile, &c.Admin.ClientCAFile)
	if c.SocketDir == "" {
		c.SocketDir = filepath.Join(c.DataDir, "run")
	}
	if c.DecisionLog.File() != "" {
		resolve(dir, &c.DecisionLog.To)
	}
	for i := range c.IDP {
		resolve(dir, &c.IDP[i].ClientSecretFile, &c.IDP[i].CAFile)
	}
	for i := range c.Issuers {
		resolve(dir, &c.Issuers[i].CAFile)
	}
	if len(c.IDP) > 0 && c.IDP[0].Name == "" {
		c.IDP[0].Name = "default"
	}
	for i := range c.TLS.Certificates {
		resolve(dir, &c.TLS.Certificates[i].CertFile, &c.TLS.Certificates[i].KeyFile)
	}
	for i := range c.TLS.ClientCertificates {
		resolve(dir, &c.TLS.ClientCertificates[i].CAFile, &c.TLS.ClientCertificates[i].CRLFile)
	}
	if a := c.TLS.ACME; a != nil {
		resolve(dir, &a.CAFile)
		if a.EAB != nil {
			resolve(dir, &a.EAB.HMACKeyFile)
		}
	}
	if !p.has("policies") {
		if path := filepath.Join(dir, "policies"); exists(path) {
			c.Policies = []string{path}
		}
	}
	for i := range c.Policies {
		resolve(dir, &c.Policies[i])
	}
	for i := range c.Bundles {
		b := &c.Bundles[i]
		resolve(dir, &b.File, &b.BearerTokenFile, &b.CAFile)
		if b.Signing != nil {
			resolve(dir, &b.Signing.KeyFile)
		}
	}
}

// own notes where the routes of a file stand, and completes them.
func (l *loader) own(p place, c *Config) {
	list := p.key("routes")
	first := len(l.routes)
	for i := range c.Routes[first:] {
		r, at := &c.Routes[first+i], list.item(i)
		r.Source = at.position()
		r.complete(filepath.Dir(r.Source.File))
		l.routes = append(l.routes, at)
	}
}

// routesDir adds the routes of every YAML file in the routes directory.
func (l *loader) routesDir(p place, c *Config) {
	if c.RoutesDir == "" {
		return
	}
	names, err := l.files.list(c.RoutesDir)
	if err != nil {
		l.add(p.key("routes_dir"), "%s", err)
		return
	}
	for _, name := range names {
		path := filepath.Join(c.RoutesDir, name)
		if ext := filepath.Ext(name); ext != ".yaml" && ext != ".yml" {
			continue
		}
		if path == c.Path {
			l.add(p.key("routes_dir"), "%s holds this file too; give the routes a directory of their own", c.RoutesDir)
			continue
		}
		var file struct {
			Routes []Route `yaml:"routes"`
		}
		if doc := l.open(path, &file); doc != nil {
			c.Routes = append(c.Routes, file.Routes...)
			l.own(doc.place(), c)
		}
	}
}

// provider is where the provider of that index stands.
func provider(root place, i int) place {
	if p := root.key("idp"); target(p.node).Kind == yaml.SequenceNode {
		return p.item(i)
	}
	return root.key("idp")
}

// clientSecret reads a client's secret. One newline at its end, as editors leave it, is not part of it.
func (l *loader) clientSecret(p place, idp *IDP) {
	if idp.ClientSecretFile == "" {
		return
	}
	at := p.key("client_secret_file")
	data, err := l.files.file(idp.ClientSecretFile)
	if err != nil {
		l.add(at, "%s", err)
		return
	}
	data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	switch {
	case len(data) == 0:
		l.add(at, "%s is empty; write the secret into it", idp.ClientSecretFile)
	case bytes.ContainsAny(data, "\r\n\x00"):
		l.add(at, "%s has more than one line; it holds the secret and nothing else", idp.ClientSecretFile)
	case idp.ClientSecret == "":
		idp.ClientSecret = Secret(data)
	default:
		l.add(at, "client_secret is given too; remove one of the two")
	}
}

// onlyHost is the origin of the only host that has a route, or zero when there is none or another one. The port of a host is said by its https
// routes, if it has any.
func onlyHost(routes []Route) URL {
	var only URL
	said := false
	for _, r := range routes {
		switch {
		case r.From.IsZero() || IsWildcard(r.Host()):
		case only.IsZero(), !said && !r.TCP() && only.Hostname() == r.Host():
			only, said = r.From.origin(), !r.TCP()
		case only.Hostname() != r.Host():
			return URL{}
		}
	}
	return only
}

// resolve makes paths absolute; relative ones are relative to dir. Empty ones stay empty.
func resolve(dir string, paths ...*string) {
	for _, path := range paths {
		switch {
		case *path == "":
		case filepath.IsAbs(*path):
			*path = filepath.Clean(*path)
		default:
			*path = filepath.Join(dir, *path)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
