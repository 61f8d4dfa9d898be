package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxShown is how much of a value from a file a message repeats, in bytes.
const maxShown = 80

// shorten cuts what is repeated in a message.
func shorten(s string) string {
	if len(s) <= maxShown {
		return s
	}
	cut := maxShown
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// unknownKey says that a key is not known, and which one was meant or which there are.
func unknownKey(key, near string, known []string) string {
	if near != "" {
		return fmt.Sprintf("unknown key %q; did you mean %q?", shorten(key), near)
	}
	return fmt.Sprintf("unknown key %q; the keys here are %s", shorten(key), strings.Join(known, ", "))
}

// keyRemedy and quoteRemedy say how to write what was probably meant.
func keyRemedy(n *yaml.Node) string {
	if n.ShortTag() == "!!merge" {
		return "merge keys (<<) are not supported: write the keys out"
	}
	return "a key is text: put it in quotes"
}

func quoteRemedy(n *yaml.Node) string {
	switch n.ShortTag() {
	case "!!bool":
		return "; put it in quotes if text is meant"
	case "!!null":
		return "; give a value or remove the key"
	}
	return ""
}

// nearest returns the known word that differs least from s, or "" when none is near.
func nearest(s string, known []string) string {
	best, least := "", max(2, len(s)/3)+1
	if len(s) > 64 {
		return ""
	}
	for _, word := range known {
		if n := distance(strings.ToLower(s), word); n < least && n < len(word) {
			best, least = word, n
		}
	}
	return best
}

// distance counts the letters to insert, remove, replace or swap with their neighbour to make b of a: the optimal string alignment
// distance of Damerau and Levenshtein.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replace := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
