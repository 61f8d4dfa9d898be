package config

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

const (
	maxPath  = 1024 // bytes of a prefix or path
	maxRegex = 1024 // bytes of a regex
	// maxRegexSize bounds the compiled size of a regex as RE2 counts it, and so the time that one request can cost. The bootstrap lets
	// Envoy take twice as much.
	maxRegexSize = 1000
)

// matches checks that no two routes of a host match the same, that each can be reached, and that none takes a path of Doorward's.
func (c *checker) matches() {
	type match struct{ host, kind, value string }
	first := make(map[match]Route)
	c.reachable()
	c.adminHosts()
	for i, r := range c.c.Routes {
		kind, value, ok := matchOf(r)
		if !ok || r.From.IsZero() {
			continue
		}
		at := c.routes[i]
		if at.has(kind) {
			at = at.key(kind)
		}
		m := match{r.Host(), kind, value}
		if other, taken := first[m]; taken && kind == kindConnect {
			c.add(at.key("from"), "route %q at %s is for a TCP service at %s too; give each service a host of its own, since programs ask for the host alone",
				shorten(other.Name), other.Source, r.Host())
		} else if taken {
			c.add(at, "%s of %s is matched by route %q at %s too; give one of them another path", matchName(kind, value), r.Host(),
				shorten(other.Name), other.Source)
		} else {
			first[m] = r
		}
		switch paths := c.c.Paths; {
		case kind == "regex", kind == kindConnect:
		case ours(value, paths.Prefix):
			c.add(at, "%q is or is below paths.prefix %q, which Doorward serves itself; use another path", value, paths.Prefix)
		case ours(value, paths.JWKS):
			c.add(at, "%q is or is below paths.jwks %q, which Doorward serves itself; use another path", value, paths.JWKS)
		}
	}
}

// reachable checks that no regular expression takes every path before the routes that are matched after it: later expressions, and prefixes.
func (c *checker) reachable() {
	greedy := make(map[string]Route)
	for _, r := range c.c.Routes {
		if _, taken := greedy[r.Host()]; !taken && r.Regex != "" && matchesAll(r.Regex) {
			greedy[r.Host()] = r
		}
	}
	if len(greedy) == 0 {
		return
	}
	met := make(map[string]bool)
	for i, r := range c.c.Routes {
		all, ok := greedy[r.Host()]
		if _, _, one := matchOf(r); !ok || !one || r.Path != "" {
			continue
		}
		switch {
		case r.Name == all.Name:
			met[r.Host()] = true
		case r.Regex == "" || met[r.Host()]:
			c.add(c.routes[i], "is never reached: regex %q of route %q at %s matches every path before it; give that one a prefix in place of the regex",
				shorten(all.Regex), shorten(all.Name), all.Source)
		}
	}
}

// matchesAll says whether an expression plainly matches every path.
func matchesAll(expression string) bool {
	re, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return false
	}
	return anything(re.Simplify())
}

// anything says whether an expression is any number of any characters, perhaps after the slash that every path begins with.
func anything(re *syntax.Regexp) bool {
	any := func(re *syntax.Regexp) bool { return re.Op == syntax.OpAnyChar || re.Op == syntax.OpAnyCharNotNL }
	switch re.Op {
	case syntax.OpStar:
		return any(re.Sub[0])
	case syntax.OpPlus:
		return any(re.Sub[0])
	case syntax.OpCapture:
		return anything(re.Sub[0])
	case syntax.OpConcat:
		rest := make([]*syntax.Regexp, 0, len(re.Sub))
		for _, sub := range re.Sub {
			switch sub.Op {
			case syntax.OpBeginText, syntax.OpEndText, syntax.OpBeginLine, syntax.OpEndLine:
			default:
				rest = append(rest, sub)
			}
		}
		if len(rest) == 2 && rest[0].Op == syntax.OpLiteral && string(rest[0].Rune) == "/" {
			return rest[1].Op == syntax.OpStar && any(rest[1].Sub[0])
		}
		return len(rest) == 1 && anything(rest[0])
	}
	return false
}

// matchOf is what a route matches: a prefix ("/" for every path, otherwise without a final slash), a path or a regex. It is not ok when
// there are several.
func matchOf(r Route) (kind, value string, ok bool) {
	if r.TCP() {
		return kindConnect, "", true
	}
	kind, value = "prefix", "/"
	n := 0
	for _, row := range []struct{ kind, value string }{{"prefix", r.Prefix}, {"path", r.Path}, {"regex", r.Regex}} {
		if row.value != "" {
			kind, value = row.kind, row.value
			n++
		}
	}
	if kind == "prefix" {
		value = "/" + strings.Trim(value, "/")
	}
	return kind, value, n <= 1
}

// match checks what a route matches of the path.
func (c *checker) match(p place, r *Route) {
	if _, _, ok := matchOf(*r); !ok {
		c.add(p, "has more than one of prefix, path and regex; keep one")
	}
	for _, row := range []struct{ key, value string }{{"prefix", r.Prefix}, {"path", r.Path}} {
		if p.has(row.key) {
			fault := pathFault(row.value, c.c.Edge.EscapedSlashes)
			if fault == "" {
				fault = twoSpellings(row.value)
			}
			if fault != "" {
				c.add(p.key(row.key), "%s", fault)
			}
		}
	}
	if !p.has("regex") {
		return
	}
	re, err := compileRegex(r.Regex)
	if err != nil {
		c.add(p.key("regex"), "%s", err)
	} else if literal, _ := re.LiteralPrefix(); literal != "" && literal[0] != '/' {
		c.add(p.key("regex"), `matches the whole path, and every path starts with "/"; begin it with "/"`)
	}
}

// compileRegex compiles a regular expression that Envoy compiles too. Envoy's RE2 reads bytes, not UTF-8, and may know other Unicode
// classes than Go does; a path is ASCII in any case, so what is beyond is refused.
func compileRegex(s string) (*regexp.Regexp, error) {
	if s == "" {
		return nil, fmt.Errorf("is empty; write a regular expression or remove the key")
	}
	if len(s) > maxRegex {
		return nil, fmt.Errorf("has %d bytes; at most %d are possible, so split it into several routes", len(s), maxRegex)
	}
	if !ascii(s) || unicodeClass(s) {
		return nil, fmt.Errorf(`goes beyond ASCII, which no path does; write percent-encoded bytes, and no \p, \P or \x{...}`)
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, fmt.Errorf("is not a regular expression of RE2: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	if n := regexSize(s); n > maxRegexSize {
		return nil, fmt.Errorf("compiles to %d instructions; at most %d are possible, so use smaller repetitions or split it", n, maxRegexSize)
	}
	return re, nil
}

func unicodeClass(s string) bool {
	for i := 0; i+1 < len(s); i++ {
		if s[i] == '\\' {
			i++
			if s[i] == 'p' || s[i] == 'P' || strings.HasPrefix(s[i:], "x{") {
				return true
			}
		}
	}
	return false
}

// regexSize is the size of RE2's program for a regular expression, or a little more: Go's has an instruction for a class of characters where
// RE2's has one for each range of bytes, and two of its own.
func regexSize(s string) int {
	parsed, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return 0
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0
	}
	n := len(prog.Inst) + 2
	for _, inst := range prog.Inst {
		switch inst.Op {
		case syntax.InstRuneAnyNotNL:
			n++
		case syntax.InstRune:
			for i := 2; i < len(inst.Rune) && inst.Rune[i] <= 0xff; i += 2 {
				n++
			}
		}
	}
	return n
}

// rewrite checks how the path changes on its way to the upstream.
func (c *checker) rewrite(p place, r *Route) {
	prefix, pattern, with := p.has("prefix_rewrite"), p.has("regex_rewrite_pattern"), p.has("regex_rewrite_substitution")
	if prefix {
		at := p.key("prefix_rewrite")
		if fault := plainPath(r.PrefixRewrite); fault != "" {
			c.add(at, "%s", fault)
		}
		if r.Regex != "" {
			c.add(at, "replaces the prefix or path that the route matches, but the route matches a regex; use regex_rewrite_pattern and regex_rewrite_substitution")
		}
		if pattern {
			c.add(at, "excludes regex_rewrite_pattern; remove one of the two")
		}
	}
	if pattern && !with {
		c.add(p.key("regex_rewrite_substitution"), "required with regex_rewrite_pattern; it says what the match is replaced by")
	}
	if with && !pattern {
		c.add(p.key("regex_rewrite_pattern"), "required with regex_rewrite_substitution; it says what is replaced")
	}
	if !pattern {
		return
	}
	re, err := compileRegex(r.RegexRewritePattern)
	if err != nil {
		c.add(p.key("regex_rewrite_pattern"), "%s", err)
	} else if fault := substitutionFault(r.RegexRewriteSubstitution, re.NumSubexp()); fault != "" {
		c.add(p.key("regex_rewrite_substitution"), "%s", fault)
	}
}

// substitutionFault says what is wrong with a substitution as RE2::Rewrite takes it: \0 to \9 stand for groups, \\ for a backslash.
func substitutionFault(s string, groups int) string {
	if !printable(s) || strings.Contains(s, "#") {
		return fmt.Sprintf("%q has a character that a path cannot hold; write it percent-encoded", shorten(s))
	}
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			continue
		}
		i++
		switch {
		case i < len(s) && s[i] == '\\':
		case i == len(s) || s[i] < '0' || s[i] > '9':
			return fmt.Sprintf(`%q has a \ without a digit; write \1 for the first group, or \\ for a backslash`, shorten(s))
		case int(s[i]-'0') > groups:
			return fmt.Sprintf(`\%c stands for a group, but the pattern has %d; add parentheses to the pattern or use another number`, s[i], groups)
		}
	}
	return ""
}
