package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// maxProblems bounds what one load reports, so that a hostile or a mistaken file cannot make a report without end.
const maxProblems = 1000

// Problem is one fault of a configuration.
type Problem struct {
	Position
	Field   string `json:"field"` // "routes[grafana].from"; "" for a fault of the file as a whole
	Message string `json:"message"`
}

// Problems is every fault found, in the order of the files: the configuration's own, then those of its routes directory.
type Problems []Problem

// Error prints one problem a line, as file:line:col: field: message. Parts that are not known are left out.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, q := range p {
		lines[i] = q.String()
	}
	return strings.Join(lines, "\n")
}

// String is file:line:col: field: message, without the parts that are not known.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.Position.String() + ": ")
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// String is file:line:col, or the file alone when the line is not known.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// report collects problems while a configuration is loaded.
type report struct {
	problems Problems
	order    []string // the files in the order in which they were opened
	full     bool
}

// add reports a problem of a field, unless it follows from one that is reported already.
func (r *report) add(at place, format string, args ...any) {
	if !at.excused && !r.full {
		r.note(Problem{Position: at.position(), Field: at.field, Message: fmt.Sprintf(format, args...)})
	}
}

func (r *report) note(p Problem) {
	if r.full = len(r.problems) == maxProblems; r.full {
		p.Field, p.Message = "", fmt.Sprintf("there are more than %d problems; correct these first", maxProblems)
	}
	p.Field, p.Message = oneLine(p.Field), oneLine(p.Message)
	r.problems = append(r.problems, p)
}

// oneLine replaces what could forge or hide a part of a report: line breaks, control characters, changes of direction.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, s)
}

// err is the Problems sorted by file and position, or nil when there are none.
func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	rank := make(map[string]int, len(r.order))
	for i, file := range r.order {
		rank[file] = i
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(rank[a.File], rank[b.File]),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
		)
	})
	return r.problems
}
