package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// globExpression turns a pattern of glob.match into a regular expression, whose matching takes linear time; OPA's own matching of globs goes
// back and forth, and takes years for *a*a*a*b* on a long text. The language is that of OPA's glob.match: * and ? stop at separators, ** does
// not, [ab] and [!a-c] are classes, {a,b} are alternatives, and a backslash escapes.
func globExpression(pattern string, separators []rune) (string, error) {
	if !utf8.ValidString(pattern) {
		return "", errors.New("the pattern is not UTF-8")
	}
	g := globParser{rest: pattern, one: anyBut(separators)}
	g.out.WriteString(`\A(?:`)
	for g.rest != "" {
		if err := g.next(); err != nil {
			return "", err
		}
	}
	if g.depth > 0 {
		return "", errors.New("the pattern has an unclosed {")
	}
	g.out.WriteString(`)\z`)
	return g.out.String(), nil
}

type globParser struct {
	rest  string
	one   string // matches one character that is no separator
	depth int    // of { }
	out   strings.Builder
}

func anyBut(separators []rune) string {
	if len(separators) == 0 {
		return `(?s:.)`
	}
	return `[^` + classOf(separators) + `]`
}

// classOf writes characters for use within a class, none of which means anything else there.
func classOf(runes []rune) string {
	var b strings.Builder
	for _, r := range runes {
		fmt.Fprintf(&b, `\x{%x}`, r)
	}
	return b.String()
}

func (g *globParser) take() rune {
	r, size := utf8.DecodeRuneInString(g.rest)
	g.rest = g.rest[size:]
	return r
}

func (g *globParser) next() error {
	switch r := g.take(); {
	case r == '*' && strings.HasPrefix(g.rest, "*"):
		g.take()
		g.out.WriteString(`(?s:.*)`)
	case r == '*':
		g.out.WriteString(g.one + `*`)
	case r == '?':
		g.out.WriteString(g.one)
	case r == '[':
		return g.class()
	case r == '{':
		g.depth++
		g.out.WriteString(`(?:`)
	case r == ',' && g.depth > 0:
		g.out.WriteString(`|`)
	case r == '}' && g.depth > 0:
		g.depth--
		g.out.WriteString(`)`)
	case r == '\\':
		if g.rest == "" {
			return errors.New("the pattern ends in a backslash")
		}
		g.out.WriteString(regexp.QuoteMeta(string(g.take())))
	default:
		g.out.WriteString(regexp.QuoteMeta(string(r)))
	}
	return nil
}

// class reads what follows "[": one range, or characters.
func (g *globParser) class() error {
	open := `[`
	if strings.HasPrefix(g.rest, "!") {
		g.take()
		open = `[^`
	}
	if low, size := utf8.DecodeRuneInString(g.rest); len(g.rest) > size && g.rest[size] == '-' {
		g.rest = g.rest[size+1:]
		high := g.take()
		if !strings.HasPrefix(g.rest, "]") || high < low {
			return errors.New("the pattern has a bad range in [ ]")
		}
		g.take()
		g.out.WriteString(open + classOf([]rune{low}) + `-` + classOf([]rune{high}) + `]`)
		return nil
	}
	var members []rune
	for {
		if g.rest == "" {
			return errors.New("the pattern has an unclosed [")
		}
		r := g.take()
		if r == ']' {
			break
		}
		if r == '\\' {
			if g.rest == "" {
				return errors.New("the pattern ends in a backslash")
			}
			r = g.take()
		}
		members = append(members, r)
	}
	if len(members) == 0 {
		return errors.New("the pattern has an empty [ ]")
	}
	g.out.WriteString(open + classOf(members) + `]`)
	return nil
}
