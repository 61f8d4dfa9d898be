package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestParseData has a document per row and what it holds, as JSON, or what is wrong with it.
func TestParseData(t *testing.T) {
	deep := strings.Repeat("[", maxDataDepth+1)
	bomb := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 8 {
		bomb += fmt.Sprintf("%c: &%[1]c [%s]\n", 'b'+i, strings.Repeat(fmt.Sprintf("*%c, ", 'a'+i), 9)+fmt.Sprintf("*%c", 'a'+i))
	}
	for _, row := range []struct{ file, text, want string }{
		{"data.json", `{"a": [1, 2.50, 12345678901234567890123, -1e3, "x", true, null, {}]}`, `{"a":[1,2.50,12345678901234567890123,-1e3,"x",true,null,{}]}`},
		{"data.json", `[]`, `[]`},
		{"data.json", `"\ud83d\ude00\/"`, `"😀/"`},
		{"data.json", ``, `data.json:1:1: the file is empty; write {} for no data`},
		{"data.json", "{\n  \"a\": 1,\n  \"a\": 2}", `data.json:3:3: duplicate name "a"; remove one of them`},
		{"data.json", "{\n  \"a\": 1,}", `data.json:2:9: not JSON: invalid character ',' at start of value`},
		{"data.json", "{} {}", `data.json:1:5: something follows the document; write one value to a file`},
		{"data.json", `{"a": `, `data.json:1:7: not JSON: unexpected EOF`},
		{"data.json", `{"a": NaN}`, `data.json:1:7: not JSON: invalid character 'N' at start of value`},
		{"data.json", "\"\xff\"", `data.json:1:2: not JSON: invalid UTF-8`},
		{"data.json", deep + strings.Repeat("]", maxDataDepth+1), ``},
		{"data.json", "[" + deep, `data.json:1:66: is nested more than 64 deep`},
		{"data.json", `[1e1000]`, `data.json:1:7: the number 1e1000 has more digits than the 64 allowed; write it as text`},
		{"data.json", "[" + strings.Repeat("0,", 2000) + "0]", `data.json:1:4000: the data documents come to more than 2000000 values; use fewer aliases, or keep less in them`},

		{"data.yaml", "a: [1, 2.50, x, true, null, ~, 2026-01-02, 09:00, '01', \"no\"]\nb: {c: d}", `{"a":[1,2.50,"x",true,null,null,"2026-01-02","09:00","01","no"],"b":{"c":"d"}}`},
		{"data.yml", "a: &a {b: 1}\nc: *a", `{"a":{"b":1},"c":{"b":1}}`},
		{"data.yaml", "m: 12345678901234567890123", `{"m":12345678901234567890123}`},
		{"data.yaml", "", `data.yaml:1:1: the file is empty; write {} for no data`},
		{"data.yaml", "a: 1\nb: 2\na: 3", `data.yaml:3:1: duplicate name "a"; remove one of them`},
		{"data.yaml", "country: no", `data.yaml:1:10: no is not the same in every version of YAML; put it in quotes, or write true, false or a decimal number`},
		{"data.yaml", "n: x", `data.yaml:1:1: n is not the same in every version of YAML; put it in quotes, or write true, false or a decimal number`},
		{"data.yaml", "on: x", `data.yaml:1:1: on is not the same in every version of YAML; put it in quotes, or write true, false or a decimal number`},
		{"data.yaml", "mode: 0777", `data.yaml:1:7: 0777 is not the same in every version of YAML; put it in quotes, or write true, false or a decimal number`},
		{"data.yaml", "m: 1_000", `data.yaml:1:4: 1_000 is not the same in every version of YAML; put it in quotes, or write true, false or a decimal number`},
		{"data.yaml", "m: .inf", `data.yaml:1:4: .inf is not the same in every version of YAML; put it in quotes, or write true, false or a decimal number`},
		{"data.yaml", "1: x", `data.yaml:1:1: a number cannot be a name here; a key is text: put it in quotes`},
		{"data.yaml", "a: &a {b: 1}\nc: {<<: *a}", `data.yaml:2:5: a merge key cannot be a name here; merge keys (<<) are not supported: write the keys out`},
		{"data.yaml", "a: !!binary aGk=", `data.yaml:1:4: has the tag !!binary; write a plain value, or text in quotes`},
		{"data.yaml", "a: !mine {b: 1}", `data.yaml:1:4: has the tag !mine, which JSON has no value for`},
		{"data.yaml", "a: [", `data.yaml:2:1: not YAML: did not find expected node content`},
		{"data.yaml", "a: 1\n---\nb: 2", `data.yaml:2:1: a second YAML document begins here; write one document to a file`},
		{"data.yaml", bomb, `data.yaml:1:32: the data documents come to more than 2000000 values; use fewer aliases, or keep less in them`},
	} {
		value, n, err := ParseData(row.file, []byte(row.text), 2000)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			text, _ := json.Marshal(value)
			got = strings.ReplaceAll(string(text), `\u003c`, "<")
			if n < 1 {
				t.Errorf("%s: %d values", row.text, n)
			}
		}
		if want := row.want; want == "" && err == nil {
			continue
		} else if got != want {
			t.Errorf("%s %.80q\ngot  %s\nwant %s", row.file, row.text, got, want)
		}
	}
}

func TestDataPosition(t *testing.T) {
	for _, row := range []struct{ file, text, path, want string }{
		{"data.json", "{\n  \"a\": 1,\n  \"b\": {\"c\": 2}}", "b c", "data.json:3:9"},
		{"data.json", "{\n  \"a\": 1,\n  \"b\": {\"c\": 2}}", "a", "data.json:2:3"},
		{"data.json", "{\"a\": 1}", "", "data.json:1:1"},
		{"data.json", "{\"a\": 1}", "x", "data.json:1:1"},
		{"data.yaml", "a: 1\nb:\n  c: 2", "b c", "data.yaml:3:6"},
	} {
		if got := DataPosition(row.file, []byte(row.text), strings.Fields(row.path)).String(); got != row.want {
			t.Errorf("%s %s: got %s, want %s", row.text, row.path, got, row.want)
		}
	}
}
