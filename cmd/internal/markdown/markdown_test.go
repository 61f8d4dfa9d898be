package markdown

import (
	"slices"
	"testing"
)

const document = "# Title\n\ntext\n\n    one\n\n      two\n\ntext\n\n## First\n\n    three\ntext\n```rego\n    four\n\nfive\n```\n## Second\n\n    six\n"

func TestBlocks(t *testing.T) {
	want := []string{"one\n\n  two\n", "three\n", "    four\n\nfive\n", "six\n"}
	if got := Blocks(document); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestSection(t *testing.T) {
	for title, want := range map[string][]string{"First": {"three\n", "    four\n\nfive\n"}, "Second": {"six\n"}, "Third": nil} {
		if got := Blocks(Section(document, title)); !slices.Equal(got, want) {
			t.Errorf("section %s has %q, want %q", title, got, want)
		}
	}
}
