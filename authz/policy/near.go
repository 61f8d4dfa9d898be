package policy

import "strings"

// nearest is the known name that is closest to the given one, at most a third of its length and three edits away; "" when there is none.
func nearest(name string, known []string) string {
	best, distance := "", min(3, len(name)/3)+1
	for _, k := range known {
		if d := edits(strings.ToLower(name), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// didYouMean is nearest as the end of a sentence.
func didYouMean(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// edits counts the insertions, deletions, substitutions and swaps of neighbours that turn one into the other (optimal string alignment).
func edits(a, b string) int {
	width := len(b) + 1
	d := make([]int, (len(a)+1)*width)
	for i := range len(a) + 1 {
		for j := range width {
			switch {
			case i == 0 || j == 0:
				d[i*width+j] = i + j
				continue
			case a[i-1] == b[j-1]:
				d[i*width+j] = d[(i-1)*width+j-1]
			default:
				d[i*width+j] = 1 + min(d[(i-1)*width+j-1], d[(i-1)*width+j], d[i*width+j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i*width+j] = min(d[i*width+j], 1+d[(i-2)*width+j-2])
			}
		}
	}
	return d[len(d)-1]
}
