package config

import (
	"slices"
	"strings"
)

const (
	// minLogSize keeps rotation from being what the log mostly does.
	minLogSize = 64 << 10
	// maxLogKeep bounds how many files one rotation renames.
	maxLogKeep = 1000
)

// decisionLog checks where the decisions are logged and how. A bare word is no file, since it is more often stdout, stderr or off misspelt.
func (c *checker) decisionLog(p place) {
	d := &c.c.DecisionLog
	switch to := p.key("to"); {
	case d.To == "":
		c.add(to, "is empty; it is stderr, stdout, off, or the path of a file")
	case d.File() != "":
		c.logFile(to, d)
	default:
		for _, key := range []string{"max_size", "keep"} {
			if p.has(key) {
				c.add(p.key(key), "has no effect on a log to %s; give `to` a file, or remove it", d.To)
			}
		}
	}
	if d.MaxSize < minLogSize {
		c.add(p.key("max_size"), "%s is too small; it is %s or more", d.MaxSize, Size(minLogSize))
	}
	if d.Keep > maxLogKeep {
		c.add(p.key("keep"), "%d is too many; at most %d rotated files are kept", d.Keep, maxLogKeep)
	}
	for i, field := range d.Mask {
		at := p.key("mask").item(i)
		if !slices.Contains(Maskable(), field) {
			c.add(at, "%q is no field that can be masked; it is one of %s", shorten(field), strings.Join(Maskable(), ", "))
		} else if slices.Contains(d.Mask[:i], field) {
			c.add(at, "%q is listed twice; remove one of them", field)
		}
	}
}

// logFile checks the path of a log file.
func (c *checker) logFile(p place, d *DecisionLog) {
	if given := target(p.node).Value; !strings.ContainsAny(given, "./") {
		c.add(p, "%q is not known; it is stderr, stdout, off, or the path of a file, as ./%s", shorten(given), shorten(given))
		return
	}
	c.output(p, d.To)
}
