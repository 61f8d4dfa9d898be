package policy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// rules are n rules, each made of the one before it, which is @ in the expression, and then the last lines, in which it is the last one.
func rules(n int, first, expression, last string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "s0 := %s\n", first)
	for i := range n {
		fmt.Fprintf(&b, "s%d := %s\n", i+1, strings.ReplaceAll(expression, "@", fmt.Sprintf("s%d", i)))
	}
	return b.String() + strings.ReplaceAll(last, "@", fmt.Sprintf("s%d", n))
}

// TestGrowingPoliciesAreCut has policies that double something in each of forty rules, which no memory would hold, and write out or compare
// what holds itself over and over.
func TestGrowingPoliciesAreCut(t *testing.T) {
	const empty = "allow if count(@) == 0"
	const (
		heavy = "the operands have more than the 4194304 bytes allowed"
		made  = "it makes more than 64 MiB of values"
	)
	path, letters, object := "input.request.path", `split(input.request.path, "")`, `{"path": input.request.path}`
	for _, row := range []struct{ rego, err string }{
		{rules(40, path, `concat("", [@, @])`, empty), "p.rego:14: concat: " + heavy},
		{rules(40, path, `sprintf("%s%s", [@, @])`, empty), "p.rego:14: sprintf: " + heavy},
		{rules(40, path, `$"{@}{@}"`, empty), "p.rego:14: internal.template_string: " + heavy},
		{rules(40, path, `json.marshal([@, @])`, empty), "p.rego:13: json.marshal: " + heavy},
		{rules(40, `"\"\"\"\"\"\"\"\""`, `json.marshal(@)`, empty), "p.rego:22: json.marshal: " + heavy},
		{rules(40, path, `yaml.marshal([@, @])`, empty), "p.rego:14: yaml.marshal: " + heavy},
		{rules(40, path, `urlquery.encode_object({"a": [@, @]})`, empty), "p.rego:11: urlquery.encode_object: " + heavy},
		{rules(60, path, `base64.encode(@)`, empty), made},
		{rules(60, path, `base64url.encode_no_pad(@)`, empty), made},
		{rules(40, path, `hex.encode(@)`, empty), made},
		{rules(40, letters, `array.concat(@, @)`, empty), made},
		{rules(40, letters, `array.flatten([@, @])`, empty), "p.rego:11: array.flatten: " + heavy},
		{rules(40, path, `replace(@, "/", "//")`, empty), "it needs more than 250000 steps"},
		{rules(40, path, `strings.replace_n({"/": "//"}, @)`, empty), "it needs more than 250000 steps"},
		{rules(40, object, `{"a": @, "b": @}`, `allow if json.marshal(@) == ""`), "p.rego:43: json.marshal: " + heavy},
		{rules(40, object, `{"a": @, "b": @}`, `allow if @ == object.union(@, {"c": 1})`), "p.rego:43: object.union: " + heavy},
		{rules(40, object, `{"a": @, "b": @}`, `allow if json.remove(@, ["a/a"]) == {}`), "p.rego:43: json.remove: " + heavy},
		{rules(40, object, `{"a": @, "b": @}`, `allow if count([1 | walk(@, [_, _])]) == 0`), "it needs more than 250000 steps"},
		{rules(40, object, `{"a": @, "b": @}`, "allow := true\nclaims := {\"c\": @}"), "claims: has more than the 1048576 bytes allowed"},
		{rules(40, object, `{"a": @, "b": @}`, "allow := true\nmetadata := {\"c\": @}"), "metadata: has more than the 1048576 bytes allowed"},
		{rules(11, path, `concat("", [@, @])`, "allow := false\nbody := @"), "body: has more than the 1048576 bytes allowed"},
		{rules(11, path, `concat("", [@, @])`, "allow := false\ndeny contains @"), "deny: has more than the 1048576 bytes allowed"},
	} {
		_, expression, _ := strings.Cut(strings.SplitN(row.rego, "\n", 3)[1], ":= ")
		t.Run(expression, func(t *testing.T) {
			p := compilePackage(t, row.rego)
			in := alice()
			in.Request.Path = strings.Repeat("/", 1024)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			d := withTimeout(p, time.Hour).Decide(t.Context(), in)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if want := "policy p: " + row.err; d.Allow || errorText(d.Err) != want {
				t.Errorf("got %s, want %s", errorText(d.Err), want)
			}
			if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 320 {
				t.Errorf("it allocated %d MiB", mib)
			}
			if took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestOrdinaryGrowthIsAllowed has what a large but sensible policy does.
func TestOrdinaryGrowthIsAllowed(t *testing.T) {
	p := compilePackage(t, `many := [sprintf("%d-%s", [i, input.user.id]) | some i in numbers.range(1, 5000)]
		table := {name: object.union({"name": name}, {"n": i}) | some i, name in many}
		allow if {
			count(json.marshal(table)) > 100000
			every i in numbers.range(1, 2000) { object.get(table, sprintf("%d-alice", [i]), null).n == i - 1 }
		}`)
	in := alice()
	in.User.ID = "alice"
	if d := withTimeout(p, time.Minute).Decide(t.Context(), in); !d.Allow || d.Err != nil {
		t.Errorf("got %+v", d)
	}
}

func TestWeight(t *testing.T) {
	shared := ast.MustParseTerm(`["0123456789"]`)
	for _, row := range []struct {
		value ast.Value
		want  int
	}{
		{ast.Null{}, 8},
		{ast.String("abc"), 11},
		{ast.Number("12"), 10},
		{shared.Value, 26},
		{ast.NewArray(shared, shared), 60},
		{ast.NewSet(shared), 34},
		{ast.NewObject([2]*ast.Term{ast.StringTerm("a"), shared}, [2]*ast.Term{ast.StringTerm("b"), shared}), 78},
	} {
		if got := weight(row.value, 1000); got != row.want {
			t.Errorf("%v weighs %d, want %d", row.value, got, row.want)
		}
	}
	deep := shared
	for range 60 {
		deep = ast.ArrayTerm(deep, deep)
	}
	if got := weight(deep.Value, 1000); got <= 1000 || got > 2000 {
		t.Errorf("a value beyond the limit weighs %d", got)
	}
}
