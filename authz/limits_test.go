package authz

import (
	"encoding/json"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// broken panics when it is read.
type broken struct{}

func (broken) MarshalJSON() ([]byte, error) { panic("no claim") }

// TestABadPolicyCostsItsOwnRequest has policies that loop, grow or panic, each on a route of its own, while others are asked about a good one.
func TestABadPolicyCostsItsOwnRequest(t *testing.T) {
	for _, row := range []struct{ name, rego, cause string }{
		{"loop", `allow if { some a in numbers.range(1, 100000); some b in numbers.range(1, 100000); a * b == 7777777777 }`,
			"it needs more than 250000 steps"},
		{"range", `allow if count(numbers.range(1, 1000000000)) == 0`, "it needs more than 250000 steps"},
		{"comprehension", `allow if count({[a, b, c] | some a in numbers.range(1, 300); some b in numbers.range(1, 300); some c in numbers.range(1, 300)}) == 0`,
			"it needs more than 250000 steps"},
		{"text", doubled(`concat("", [@, @])`), "text.rego:20: concat: the operands have more than the 4194304 bytes allowed"},
		{"hex", doubled(`hex.encode(@)`), "it makes more than 64 MiB of values"},
		{"width", `allow if sprintf("%1000000000d", [1]) == ""`, "width.rego:2: sprintf: operand 1 has a width that is an operand or more than 999"},
		{"regexp", `allow if regex.match(sprintf("(%s{1000}){1000}", [input.user.id]), "x")`, "regexp.rego:2: regex.match: error parsing regexp: invalid repeat count: `{1000}`"},
		{"walk", "allow if count([1 | walk(input.user.claims, [_, _])]) == 0", "it needs more than 250000 steps"},
		{"panic", `allow if input.user.claims.broken == 1`, "it panicked: no claim"},
	} {
		t.Run(row.name, func(t *testing.T) {
			sources := map[string]string{"good.rego": "package good\nallow if \"staff\" in input.user.groups", row.name + ".rego": "package " + row.name + "\n" + row.rego}
			d := newDoor(t, sources, routeTo(t, "good", "good"), routeTo(t, "bad", row.name))
			d.timeout = 0 // the usual one
			d.adopt(sources, routeTo(t, "good", "good"), routeTo(t, "bad", row.name))
			d.Decisions = nil // what the program's own log says is looked at
			claims := d.Sessions.(people)["alice"].User.Claims
			if row.name == "panic" {
				claims["broken"] = broken{}
			} else {
				claims["many"] = nested(250_000)
			}
			good := d.whileGood()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			r := d.check(d.to("bad"))
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if n, slowest := good(); n == 0 && took > time.Second || slowest > 10*time.Second {
				t.Errorf("%d others were answered in %v, the slowest after %v", n, took, slowest)
			}
			if status(r) != 403 || strings.Contains(r.GetDeniedResponse().GetBody(), row.cause) {
				t.Errorf("got %d %s", status(r), r.GetDeniedResponse().GetBody())
			}
			if took > 10*time.Second { // on a busy machine, under the race detector
				t.Errorf("it took %v", took)
			}
			if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 512 {
				t.Errorf("it allocated %d MiB", mib)
			}
			var line struct{ Level, Route, Outcome, Cause string }
			if err := json.Unmarshal([]byte(d.log.String()), &line); err != nil {
				t.Fatalf("not one line of log: %v %.2000s", err, d.log)
			}
			late := regexp.MustCompile(`^policy \w+: it was given up after \d+ steps: context deadline exceeded$`).MatchString(line.Cause)
			if named := strings.HasPrefix(line.Cause, "policy "+row.name+": ") && strings.HasSuffix(line.Cause, row.cause); !named && !late {
				t.Errorf("the cause is %s, want %s", line.Cause, row.cause)
			}
			if line.Level != "ERROR" || line.Route != "bad" || line.Outcome != "deny" {
				t.Errorf("the log says %+v", line)
			}
		})
	}
}

// doubled is a policy that makes a text of 16 bytes twice as long, forty times.
func doubled(expression string) string {
	b := new(strings.Builder)
	fmt.Fprintf(b, "s0 := concat(\"\", [input.user.id, \"0123456789a\"])\n")
	for i := range 40 {
		fmt.Fprintf(b, "s%d := %s\n", i+1, strings.ReplaceAll(expression, "@", fmt.Sprintf("s%d", i)))
	}
	return b.String() + "allow if count(s40) == 0"
}

// nested is a claim of that many members.
func nested(n int) any {
	var list []any
	for i := range n {
		list = append(list, i)
	}
	return list
}

// to asks about a route.
func (d *door) to(route string) ask {
	a := d.ask(cookie, signedIn("alice"), "accept", "application/json")
	a.route, a.revision = route, d.g.Revision(route)
	return a
}

// whileGood has the good route asked about until stop, which returns how many answers there were and how long the slowest took.
func (d *door) whileGood() (stop func() (n int64, slowest time.Duration)) {
	var ended atomic.Bool
	var n, slowest atomic.Int64
	done, first := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for !ended.Load() {
			start := time.Now()
			if got := status(d.check(d.to("good"))); got != 200 {
				d.t.Errorf("the good route got %d", got)
				ended.Store(true)
			}
			slowest.Store(max(slowest.Load(), int64(time.Since(start))))
			if n.Add(1) == 1 {
				close(first)
			}
		}
	}()
	<-first
	n.Store(1)
	return func() (int64, time.Duration) {
		answered := n.Load() - 1
		ended.Store(true)
		<-done
		return answered, time.Duration(slowest.Load())
	}
}
