package policy

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// withTimeout is the policy with another bound of its evaluation.
func withTimeout(p *Policy, timeout time.Duration) *Policy {
	q, set := *p, *p.set
	set.timeout = timeout
	q.set = &set
	return &q
}

// endless are policies that would run for minutes, or fill the memory.
var endless = map[string]string{
	"cross product": `n := numbers.range(1, 1000)
		allow if count([1 | some a in n; some b in n; some c in n; a + b + c == 1]) == 0`,
	"range": `allow if count(numbers.range(1, 1000000000000)) == 0`,
	"cidr":  `allow if count(net.cidr_expand("10.0.0.0/8")) == 0`,
	"in deny": `allow := true
		deny contains "x" if { some a in numbers.range(1, 100000); some b in numbers.range(1, 100000); a * b == 7777777777 }`,
	"under not": `allow if not forever
		forever if { some a in numbers.range(1, 100000); some b in numbers.range(1, 100000); a * b == 7777777777 }`,
	"functions": `f0(x) := x + 1
		f1(x) := sum([f0(1000 * x + y) | some y in numbers.range(1, 99)])
		f2(x) := sum([f1(1000 * x + y) | some y in numbers.range(1, 99)])
		f3(x) := sum([f2(1000 * x + y) | some y in numbers.range(1, 99)])
		allow if f3(1) == 0`,
}

func TestEndlessPoliciesAreCut(t *testing.T) {
	for name, rego := range endless {
		t.Run(name, func(t *testing.T) {
			p := compilePackage(t, rego)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			d := withTimeout(p, time.Hour).Decide(t.Context(), alice())
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if want := "policy p: it needs more than 250000 steps"; d.Allow || errorText(d.Err) != want {
				t.Errorf("got %+v, want %s", d, want)
			}
			if took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 512 {
				t.Errorf("it allocated %d MiB", mib)
			}
		})
	}
}

// TestLateResultDenies has one call that takes longer than the whole evaluation may, with nothing after it that asks the time.
func TestLateResultDenies(t *testing.T) {
	p := withTimeout(compilePackage(t, "allow if count(json.marshal(numbers.range(1, 200000))) > 0"), 2*time.Millisecond)
	if d := p.Decide(t.Context(), alice()); d.Allow || d.Err == nil {
		t.Errorf("a late result is taken: %+v", d)
	}
}

func TestTimeoutDenies(t *testing.T) {
	p := compilePackage(t, endless["cross product"])
	d := withTimeout(p, time.Nanosecond).Decide(t.Context(), alice())
	if want := "policy p: it was given up after 64 steps: context deadline exceeded"; d.Allow || errorText(d.Err) != want {
		t.Errorf("got %+v, want %s", d, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d = withTimeout(p, time.Hour).Decide(ctx, alice())
	if want := "policy p: it was given up after 64 steps: context canceled"; d.Allow || errorText(d.Err) != want {
		t.Errorf("got %+v, want %s", d, want)
	}
	if !errors.Is(d.Err, context.Canceled) {
		t.Error("the cause is lost")
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	d = withTimeout(p, time.Hour).Decide(ctx, alice())
	if d.Allow || !errors.Is(d.Err, context.DeadlineExceeded) {
		t.Errorf("got %+v", d)
	}
}

func TestDefaultTimeout(t *testing.T) {
	s, err := Load(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if s.timeout != 100*time.Millisecond {
		t.Errorf("got %v", s.timeout)
	}
}

// TestPanicsDeny has the panic where a fault of ours or OPA's would have it: while the input is built, and while rules run.
func TestPanicsDeny(t *testing.T) {
	p := compilePackage(t, `allow if input.request.headers.accept`)
	in := alice()
	in.Request.Headers = func(string) (string, bool) { panic("no headers") }
	if d, want := p.Decide(t.Context(), in), "policy p: it panicked: no headers"; d.Allow || errorText(d.Err) != want {
		t.Errorf("got %+v, want %s", d, want)
	}
	broken := *p
	broken.query = ast.Body{nil}
	if d := broken.Decide(t.Context(), alice()); d.Allow || !strings.HasPrefix(errorText(d.Err), "policy p: it panicked: ") {
		t.Errorf("got %+v", d)
	}
	if d := NewCache(16, 1<<20).Decide(t.Context(), p, alice()); !d.Allow {
		t.Errorf("a panic has effects on later decisions: %+v", d)
	}
}

// TestHostileInput gives single built-ins, through the request, what has made such programs run or grow without bound.
func TestHostileInput(t *testing.T) {
	deep := strings.Repeat
	inputs := []string{
		"1e1000000000", "-1e1000000000", deep("9", 60000), "0x" + deep("f", 60000), "1e308",
		deep("[", 60000), deep(`{"a":`, 10000), deep("- ", 30000), deep("(", 60000), deep("a{1000}", 1000), deep("*a", 30000), deep("{a,", 20000),
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n",
		"0.0.0.0/0", "::/0", "%1000000d", "%[1]999999999s", deep("a", 60000), deep("eyJ.", 15000), deep("%zz", 20000), "\xff\xfe\x00", deep("&a=1", 15000),
		deep("1.", 30000), "9999999EB", deep("a*", 2000) + "b",
	}
	for _, rule := range []string{
		`to_number(x) > 5`, `numbers.range(1, to_number(x))[_] == 7`, `json.unmarshal(x).a`, `yaml.unmarshal(x).a`,
		`regex.match(x, x)`, `regex.match("([a-z0-9]{1,100}){1,10}$", x)`, `count(regex.split("a?", x)) == 1`, `regex.replace(x, x, x) == "x"`,
		`regex.replace(x, "a*b|a", x) == "x"`, `count(regex.find_n("a*b|a", x, -1)) == 1`,
		`glob.match(x, [], x)`, `glob.match("*a*a*a*b*", null, x)`, `glob.match("{a,b*c,*d*}*{x,*y*}/**", ["/"], x)`,
		`replace(x, "", x) == "x"`, `concat(x, split(x, "")) == "x"`, `sprintf(x, [1]) == "x"`,
		`units.parse_bytes(x) > 1`, `net.cidr_contains(x, "10.0.0.1")`, `count(net.cidr_expand(x)) == 1`,
		`urlquery.decode_object(x).a`, `time.parse_ns(x, x) == 1`, `semver.compare(x, x) == 1`, `io.jwt.decode(x)[1].a`, `base64.decode(x) == "x"`,
		`crypto.x509.parse_certificates(x)[0].a`, `uri.parse(x).host == "x"`,
	} {
		p := withTimeout(compilePackage(t, "x := input.request.headers.x\nallow if "+rule), time.Minute)
		for _, x := range inputs {
			start := time.Now()
			d := p.Decide(t.Context(), withHeaders(alice(), map[string]string{"x": x}))
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s with %.40q took %v: %.100v", rule, x, took, d.Err)
			}
		}
	}
}

func TestBoundsOfCalls(t *testing.T) {
	for _, row := range []struct{ rego, err string }{
		{`allow if regex.replace(x, "a", "b") == "x"`, "policy p: p.rego:3: regex.replace: operand 1 has 5000 bytes, more than the 4096 allowed"},
		{`allow if regex.match(x, "a")`, "policy p: p.rego:3: regex.match: the pattern has 5000 bytes, more than the 4096 allowed"},
		{`allow if regex.match("((a{100}){10}){100}", x)`, "policy p: p.rego:3: regex.match: error parsing regexp: invalid repeat count: `{100}`"},
		{`allow if regex.match("(a{1000}b{1000}c{1000}d{1000}e{1000})", x)`, "policy p: it needs more than 250000 steps"},
		{`allow if regex.match("^(/[a-z0-9-]+)*$", x)`, ""},
		{`allow if glob.match("**a*", ["/"], x)`, ""},
		{`allow if glob.match("{a", ["/"], x)`, "policy p: p.rego:3: glob.match: the pattern has an unclosed {"},
		{`allow if replace(x, "a", x) == "b"`, "policy p: p.rego:3: replace: the result may have 25005000 bytes, more than the 4194304 allowed"},
		{`allow if replace(x, "a", "bcd") == "b"`, ""},
		{`allow if concat(", ", ["a", "b"]) == "a, b"`, ""},
		{`allow if sprintf("%5.2f%% %-10s %v [*]", [1.5, "a", 1]) == " 1.50% a          1 [*]"`, ""},
		{`allow if sprintf("%1000d", [1]) == "x"`, "policy p: p.rego:3: sprintf: operand 1 has a width that is an operand or more than 999"},
		{`allow if sprintf("%.1000f", [1]) == "x"`, "policy p: p.rego:3: sprintf: operand 1 has a width that is an operand or more than 999"},
		{`allow if sprintf("%-*d", [1, 2]) == "x"`, "policy p: p.rego:3: sprintf: operand 1 has a width that is an operand or more than 999"},
	} {
		p := withTimeout(compilePackage(t, "x := input.request.path\n"+row.rego), time.Minute)
		in := alice()
		in.Request.Path = strings.Repeat("/", 5000)
		if got := errorText(p.Decide(t.Context(), in).Err); got != row.err {
			t.Errorf("%s\ngot  %s\nwant %s", row.rego, got, row.err)
		}
	}
}

func TestBudgetLooksAtTheClock(t *testing.T) {
	for _, step := range []int{1, 2, 63, 64, 65, 127, 1000} {
		b := newBudget(t.Context(), time.Nanosecond)
		n := 0
		for ; !b.spend(step); n += step {
		}
		if n > clockSteps || !errors.Is(b.err, context.DeadlineExceeded) {
			t.Errorf("in steps of %d it looks after %d: %v", step, n, b.err)
		}
	}
}
