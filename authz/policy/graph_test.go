package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Ten nodes in each of seven layers, each leading to all of the next: ten million ways.
func TestGraphReachableIsBoundedByTheGraph(t *testing.T) {
	p := compilePackage(t, `edges := {sprintf("%d.%d", [l, n]): [sprintf("%d.%d", [l + 1, m]) | some m in numbers.range(1, 10)] |
		some l in numbers.range(1, 7)
		some n in numbers.range(1, 10)
	}
	allow if count(graph.reachable(edges, ["1.1"])) == 61`)
	start := time.Now()
	if d := withTimeout(p, 200*time.Millisecond).Decide(t.Context(), alice()); !d.Allow || d.Err != nil {
		t.Errorf("after %v: %+v", time.Since(start), d)
	}
}

func TestGraphReachable(t *testing.T) {
	const graph = `{"a": {"b"}, "b": ["c", "b", "b", "gone"], "c": ["a"], "d": ["c"], "e": [], 5: ["e"]}`
	for _, row := range []struct{ initial, want string }{
		{`["a"]`, `{"a", "b", "c"}`},
		{`{"d"}`, `{"a", "b", "c", "d"}`},
		{`["gone", "e"]`, `{"e"}`},
		{`[5]`, `{"e", 5}`},
		{`[]`, `set()`},
	} {
		p := compilePackage(t, fmt.Sprintf("allow if graph.reachable(%s, %s) == %s", graph, row.initial, row.want))
		if d := p.Decide(t.Context(), alice()); !d.Allow {
			t.Errorf("from %s: not %s: %+v", row.initial, row.want, d)
		}
	}
	p := compilePackage(t, `allow if count(graph.reachable({"a": []}, input.user.claims.department)) == 0`)
	if d := p.Decide(t.Context(), alice()); d.Err == nil || !strings.Contains(d.Err.Error(), "graph.reachable: operand 2 must be {array, set} but got string") {
		t.Errorf("got %+v", d)
	}
}

func TestLongNumbersWithUnitsAreRefused(t *testing.T) {
	for _, name := range []string{"units.parse", "units.parse_bytes"} {
		p := compilePackage(t, fmt.Sprintf(`allow if %s(concat("", [sprintf("%%0500d", [1]) | some i in numbers.range(1, 3)])) > 0`, name))
		if d := p.Decide(t.Context(), alice()); d.Allow || d.Err == nil || !strings.Contains(d.Err.Error(), name+": operand 1 has 1500 bytes, more than the 1024 allowed") {
			t.Errorf("%s: %+v", name, d)
		}
	}
}
