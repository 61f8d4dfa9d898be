package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"
)

// sourcePushed is the file of a Position in a route that is kept in the store, before its name.
const sourcePushed = "pushed route "

// Document is a pushed route as it is kept: the YAML of one route, which is an item of the list `routes`.
type Document struct {
	Name string
	Text []byte
}

// Pushed is a route that comes over the admin API. Its values are completed and not yet checked.
type Pushed struct {
	Route Route
	Text  []byte // for a Document
	at    place
}

// ParsePushed reads a document with `routes`, as a file of routes_dir is. File names it in the problems: the error is a Problems. Relative paths
// in it are relative to dir. JSON is YAML too.
func ParsePushed(file string, text []byte, dir string) ([]Pushed, error) {
	l := loader{files: newFiles()}
	doc, problem := parse(file, text)
	if problem != nil {
		return nil, Problems{*problem}
	}
	var content struct {
		Routes []Route `yaml:"routes"`
	}
	l.decode(doc, &content)
	if err := l.err(); err != nil {
		return nil, err
	}
	list := doc.place().key("routes")
	out := make([]Pushed, len(content.Routes))
	room := maxPushedText
	for i := range content.Routes {
		r, at := &content.Routes[i], list.item(i)
		r.Source, r.pushed = at.position(), true
		r.complete(dir)
		text, err := textOf(at, r, &room)
		if err != nil {
			return nil, Problems{{Position: at.position(), Field: at.field, Message: err.Error()}}
		}
		out[i] = Pushed{*r, text, at}
	}
	return out, nil
}

// How many bytes the texts of routes may come to. Aliases can make much of little.
const (
	maxPushedRoute = 1 << 20
	maxPushedText  = 64 << 20 // of all routes of a document
)

// textOf is the YAML of a route as it is kept: as it was given, with absolute paths. It takes room.
func textOf(at place, r *Route, room *int) ([]byte, error) {
	left := min(maxPushedRoute, *room)
	*room -= left
	node := resolved(at.node, &left)
	if left < 0 {
		return nil, fmt.Errorf("has more than %d bytes when each alias is written out, or all routes together have more than %d; push them in several parts", maxPushedRoute, maxPushedText)
	}
	*room += left
	node.Style &^= yaml.FlowStyle // a line for each key, so that changes of a route that came in JSON can be read
	for i := 0; i+1 < len(node.Content); i += 2 {
		node.Content[i].Style = 0 // of JSON's keys, quoted
		switch value := node.Content[i+1]; node.Content[i].Value {
		case "tls_custom_ca_file":
			value.Value = r.TLSCAFile
		case "tls_client_cert_file":
			value.Value = r.TLSClientCertFile
		case "tls_client_key_file":
			value.Value = r.TLSClientKeyFile
		}
	}
	return yaml.Dump(node, yaml.WithV4Defaults())
}

// resolved is a copy of a node in which each alias is what it stands for, and nothing else is kept than keys, values and comments. It takes room, and
// ends when there is none.
func resolved(n *yaml.Node, room *int) *yaml.Node {
	out := *target(n)
	*room -= len(out.Value) + len(out.HeadComment) + len(out.LineComment) + len(out.FootComment) + 1
	out.Anchor, out.Content = "", make([]*yaml.Node, 0, len(out.Content))
	for _, child := range target(n).Content {
		if *room < 0 {
			break
		}
		out.Content = append(out.Content, resolved(child, room))
	}
	return &out
}

// complete makes the paths of the files that the route names absolute; relative ones are relative to dir.
func (r *Route) complete(dir string) {
	resolve(dir, &r.TLSCAFile, &r.TLSClientCertFile, &r.TLSClientKeyFile)
}

// IsPushed says whether the route came over the admin API.
func (r Route) IsPushed() bool { return r.pushed }

// NamesFiles says whether the route's meaning depends on files.
func (r Route) NamesFiles() bool { return r.contents != "" }

// pushed adds routes that are kept in the store.
func (l *loader) pushed(c *Config, documents []Document) {
	for _, d := range documents {
		name := sourcePushed + d.Name
		l.order = append(l.order, name)
		doc, problem := parse(name, d.Text)
		if problem != nil {
			l.note(*problem)
			continue
		}
		var r Route
		l.decode(doc, &r)
		at := doc.place()
		at.field = "routes[" + d.Name + "]"
		r.Source, r.pushed = at.position(), true
		r.complete(filepath.Dir(c.Path))
		c.Routes, l.routes = append(c.Routes, r), append(l.routes, at)
	}
}

// ParseDocument reads one route. Relative paths in it are relative to dir. The error is a Problems.
func ParseDocument(d Document, dir string) (Pushed, error) {
	l, c := loader{files: newFiles()}, &Config{Path: filepath.Join(dir, "doorward.yaml")}
	l.pushed(c, []Document{d})
	switch {
	case len(c.Routes) != 1 || l.err() != nil || c.Routes[0].Name == d.Name:
	case c.Routes[0].Name == "":
		l.add(l.routes[0].key("name"), "is missing; write name: %s, which is the route's name here", d.Name)
	default:
		l.add(l.routes[0].key("name"), "%q is not %q, which is the route's name here", shorten(c.Routes[0].Name), d.Name)
	}
	if err := l.err(); err != nil {
		return Pushed{}, err
	}
	room := maxPushedText
	text, err := textOf(l.routes[0], &c.Routes[0], &room)
	if err != nil {
		return Pushed{}, Problems{{Position: c.Routes[0].Source, Message: err.Error()}}
	}
	return Pushed{c.Routes[0], text, l.routes[0]}, nil
}

// Matches is what the route matches of the path, for people.
func (r Route) Matches() string {
	kind, value, _ := matchOf(r)
	return matchName(kind, value)
}

// Leads is where the route leads to, for people.
func (r Route) Leads() string {
	switch {
	case r.Redirect != nil:
		return fmt.Sprintf("redirect %d", r.Redirect.Status)
	case r.Response != nil:
		return fmt.Sprintf("response %d", r.Response.Status)
	}
	var to []string
	for _, t := range r.To {
		to = append(to, t.URL.String())
	}
	return strings.Join(to, ", ")
}
