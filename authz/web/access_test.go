package web

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// TestAccessible holds what assistive technology stands on: a language, a title, one main heading, landmarks that hold everything, names for
// everything that can be acted on, and lists that stay lists without their bullets (Safari takes the role away with them).
func TestAccessible(t *testing.T) {
	say := func(field string) string { return field }
	for kind, p := range map[string]*Pages{"plain": pages(t), "branded": brandedPages(t, example)} {
		for name, page := range all(p, say) {
			for _, fault := range barriers(t, page) {
				t.Errorf("%s, %s: %s", name, kind, fault)
			}
		}
	}
}

// TestAccessibleNotices has pages that people could not use: each fault is found.
func TestAccessibleNotices(t *testing.T) {
	const good = `<!doctype html><html lang="en"><head><title>t</title><meta name="viewport" content="width=device-width, initial-scale=1"></head>` +
		`<body><header><p>h</p></header><main><h1>h</h1>BODY</main></body></html>`
	page := func(body string) Page { return Page{Body: []byte(strings.Replace(good, "BODY", body, 1))} }
	if faults := barriers(t, page(`<h2 id="a">x</h2><ul class="c" role="list" aria-labelledby="a"><li><a href="/">x</a></li></ul>`)); len(faults) != 0 {
		t.Error(faults)
	}
	for body, want := range map[string]string{
		`<button type="submit"></button>`:                   "<button> has no name",
		`<a href="/"><img src="data:," alt=""></a>`:         "<a> has no name",
		`<img src="data:,">`:                                "<img> has no alt",
		`<input name="x">`:                                  "<input> has no name",
		`<h1>another</h1>`:                                  "2 main headings",
		`<h3>x</h3>`:                                        "h3 follows h1",
		`<p id="a"></p><p id="a"></p>`:                      `the id "a" is there twice`,
		`<ul aria-labelledby="no"></ul>`:                    `aria-labelledby names "no", which is not there`,
		`<a href="/" tabindex="1">x</a>`:                    "tabindex 1 changes the order of focus",
		`<ul class="c"><li>x</li></ul>`:                     `<ul class="c"> has no role`,
		`<main></main>`:                                     "2 main landmarks",
		`<button aria-label="Stop the thing">End</button>`:  `<button> says "End" and is called "Stop the thing"`,
		`<a href="/" target="_blank">x</a>`:                 "a link opens a window of its own",
		`<p aria-hidden="true"><a href="/">x</a></p>`:       "something that can be acted on is hidden",
		`<button type="submit" autofocus>x</button>`:        "autofocus takes a reader past what the page says",
		`<meta name="viewport" content="user-scalable=no">`: "the page cannot be zoomed",
	} {
		if faults := barriers(t, page(body)); !slices.Contains(faults, want) {
			t.Errorf("%s: %q, want %q", body, faults, want)
		}
	}
}

// barriers are the faults of one page.
func barriers(t *testing.T, page Page) (faults []string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(string(page.Body)))
	if err != nil {
		t.Fatal(err)
	}
	count, ids, level := map[string]int{}, map[string]int{}, 0
	for n := range root.Descendants() {
		if n.Type == html.TextNode && strings.TrimSpace(n.Data) != "" && !within(n, "header", "main", "footer", "head", "script", "noscript") {
			faults = append(faults, "text outside the landmarks: "+strings.TrimSpace(n.Data))
		}
		if n.Type != html.ElementNode {
			continue
		}
		count[n.Data]++
		if id := attr(n, "id"); id != "" {
			if ids[id]++; ids[id] == 2 {
				faults = append(faults, `the id "`+id+`" is there twice`)
			}
		}
		if len(n.Data) == 2 && n.Data[0] == 'h' && n.Data[1] >= '1' && n.Data[1] <= '6' {
			if now := int(n.Data[1] - '0'); now > level+1 {
				faults = append(faults, n.Data+" follows h"+string(rune('0'+level)))
			} else {
				level = now
			}
		}
		faults = append(faults, barrier(n)...)
	}
	for n := range root.Descendants() {
		if to := attr(n, "aria-labelledby"); to != "" && ids[to] == 0 {
			faults = append(faults, `aria-labelledby names "`+to+`", which is not there`)
		}
		if n.Data == "html" && n.Type == html.ElementNode && attr(n, "lang") != "en" {
			faults = append(faults, "the language is not given")
		}
		if n.Data == "title" && n.Type == html.ElementNode && strings.TrimSpace(words(n)) == "" {
			faults = append(faults, "the title is empty")
		}
	}
	for name, landmark := range map[string]string{"h1": "main headings", "main": "main landmarks", "header": "headers", "title": "titles"} {
		if count[name] != 1 {
			faults = append(faults, string(rune('0'+count[name]))+" "+landmark)
		}
	}
	return faults
}

// barrier are the faults of one element.
func barrier(n *html.Node) (faults []string) {
	label, shown := attr(n, "aria-label"), strings.Join(strings.Fields(words(n)), " ")
	switch n.Data {
	case "a", "button":
		if label == "" && shown == "" {
			faults = append(faults, "<"+n.Data+"> has no name")
		}
		if label != "" && !strings.Contains(label, shown) { // WCAG 2.2, criterion 2.5.3
			faults = append(faults, "<"+n.Data+`> says "`+shown+`" and is called "`+label+`"`)
		}
		if attr(n, "target") != "" {
			faults = append(faults, "a link opens a window of its own")
		}
		for p := n; p != nil; p = p.Parent {
			if attr(p, "aria-hidden") == "true" {
				faults = append(faults, "something that can be acted on is hidden")
			}
		}
	case "input":
		if attr(n, "type") != "hidden" && label == "" {
			faults = append(faults, "<input> has no name")
		}
	case "img":
		if !slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == "alt" }) {
			faults = append(faults, "<img> has no alt")
		}
	case "ul":
		if class := attr(n, "class"); class != "" && attr(n, "role") != "list" {
			faults = append(faults, `<ul class="`+class+`"> has no role`)
		}
	case "meta":
		if content := attr(n, "content"); strings.Contains(content, "user-scalable") || strings.Contains(content, "maximum-scale") {
			faults = append(faults, "the page cannot be zoomed")
		}
	}
	if index := attr(n, "tabindex"); index != "" && index != "0" {
		faults = append(faults, "tabindex "+index+" changes the order of focus")
	}
	if slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == "autofocus" }) {
		faults = append(faults, "autofocus takes a reader past what the page says")
	}
	return faults
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func within(n *html.Node, names ...string) bool {
	for p := n.Parent; p != nil; p = p.Parent {
		if slices.Contains(names, p.Data) {
			return true
		}
	}
	return false
}

func words(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}
