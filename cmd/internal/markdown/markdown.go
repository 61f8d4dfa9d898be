// Package markdown finds the code in our documents, for the tests that try it. It knows the little of Markdown that these use and nothing more.
package markdown

import "strings"

// Section is what is below a heading of the second level, up to the next one; "" when there is none.
func Section(text, title string) string {
	_, rest, found := strings.Cut("\n"+text, "\n## "+title+"\n")
	if !found {
		return ""
	}
	section, _, _ := strings.Cut(rest, "\n## ")
	return section
}

// Blocks are the code blocks of a text, those that are indented by four spaces and those between lines of three backquotes.
func Blocks(text string) (blocks []string) {
	var block strings.Builder
	end := func() {
		if block.Len() > 0 {
			blocks = append(blocks, strings.TrimRight(block.String(), "\n")+"\n")
		}
		block.Reset()
	}
	fenced := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "```"):
			end()
			fenced = !fenced
		case fenced:
			block.WriteString(line)
		case strings.HasPrefix(line, "    "):
			block.WriteString(line[4:])
		case strings.TrimSpace(line) == "" && block.Len() > 0:
			block.WriteString("\n")
		default:
			end()
		}
	}
	end()
	return blocks
}
