package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"doorward/authz"
	"doorward/authz/policy"
)

// capture is one captured request with what was decided: a line of a fixture.
type capture struct {
	ID      string            `json:"id"`
	Time    time.Time         `json:"time"`
	Route   string            `json:"route"`
	Policy  string            `json:"policy"`
	Input   json.RawMessage   `json:"input"`
	Outcome string            `json:"outcome"`
	Reasons []string          `json:"reasons"`
	Claims  map[string]any    `json:"claims"`
	Headers map[string]string `json:"headers"`
}

// maxCapture bounds one line.
const maxCapture = 4 << 20

// captures reads fixtures, which have one JSON object a line. The error of a line that is none names file and line.
func captures(r io.Reader, file string, each func(capture, *policy.Input) error) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxCapture)
	for line := 1; scanner.Scan(); line++ {
		text := bytes.TrimSpace(scanner.Bytes())
		if len(text) == 0 {
			continue
		}
		var c capture
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		err := decoder.Decode(&c)
		if err == nil && (c.Route == "" || c.Outcome == "") {
			err = errors.New("route and outcome are required")
		}
		var in *policy.Input
		if err == nil && len(c.Input) > 0 && string(c.Input) != "null" {
			in, err = policy.ParseInput(c.Input)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: is no captured request (doorward decisions captures them): %w", file, line, err)
		}
		if err := each(c, in); err != nil {
			return err
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// verdict is what was, or would be, decided.
type verdict struct {
	Outcome string            `json:"outcome"`
	Cause   string            `json:"cause,omitempty"`
	Reasons []string          `json:"reasons,omitempty"`
	Claims  map[string]any    `json:"claims,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
}

// changed is a captured request that would be decided otherwise.
type changed struct {
	ID          string    `json:"id"`
	Time        time.Time `json:"time"`
	Route       string    `json:"route"`
	Policy      string    `json:"policy"`
	User        string    `json:"user"` // "" without a session
	Method      string    `json:"method"`
	Path        string    `json:"path"`
	Differences []string  `json:"differences"` // of outcome, reasons, claims, headers
	Was         verdict   `json:"was"`
	Now         verdict   `json:"now"`
}

// replay decides captured requests anew.
type replay struct {
	generation *authz.Generation
	Requests   int       `json:"requests"`
	Same       int       `json:"same"`
	Changed    []changed `json:"changed"`
	Skipped    int       `json:"skipped"`  // that no policy decided: misdirected, malformed, unavailable
	NoRoute    []string  `json:"no_route"` // routes of captured requests that are no more
	Notes      []string  `json:"notes"`

	policies map[string]*policy.Policy
	asked    map[string]int             // requests by policy
	had      map[string]map[string]bool // headers that they have, by policy
}

func newReplay(g *authz.Generation) *replay {
	return &replay{
		generation: g, Changed: []changed{}, NoRoute: []string{}, Notes: []string{},
		policies: map[string]*policy.Policy{}, asked: map[string]int{}, had: map[string]map[string]bool{},
	}
}

func (r *replay) file(ctx context.Context, stdin io.Reader, path string) error {
	from := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		from = f
	}
	return captures(from, path, func(c capture, in *policy.Input) error { return r.add(ctx, c, in) })
}

func (r *replay) add(ctx context.Context, c capture, in *policy.Input) error {
	r.Requests++
	if in == nil || c.Outcome != "allow" && c.Outcome != "deny" && c.Outcome != "unauthenticated" {
		r.Skipped++
		return ctx.Err()
	}
	now, err := r.generation.Try(ctx, c.Route, *in)
	if errors.Is(err, authz.ErrNoRoute) {
		if !slices.Contains(r.NoRoute, c.Route) {
			r.NoRoute = append(r.NoRoute, c.Route)
		}
		r.Skipped++
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	r.saw(now.Policy, in)
	found := changed{
		ID: c.ID, Time: c.Time, Route: c.Route, Policy: now.Policy.Name(), Method: in.Request.Method, Path: in.Request.Path,
		Was: verdict{Outcome: c.Outcome, Reasons: c.Reasons, Claims: c.Claims, Headers: c.Headers}, Now: verdictOf(now),
	}
	if u := in.User; u != nil {
		found.User = u.Email
		if u.Email == "" {
			found.User = u.ID
		}
	}
	if c.Outcome != "allow" {
		found.Was.Claims, found.Was.Headers = nil, nil
	}
	if found.Differences = differences(found.Was, found.Now); len(found.Differences) == 0 {
		r.Same++
		return ctx.Err()
	}
	r.Changed = append(r.Changed, found)
	return ctx.Err()
}

// saw remembers which headers the requests to a policy have.
func (r *replay) saw(p *policy.Policy, in *policy.Input) {
	name := p.Name()
	r.policies[name] = p
	r.asked[name]++
	if r.had[name] == nil {
		r.had[name] = map[string]bool{}
	}
	for _, header := range in.Request.Names() {
		r.had[name][header] = true
	}
}

// end says what of the replay is not as it was when the requests were captured.
func (r *replay) end() {
	for _, name := range slices.Sorted(maps.Keys(r.policies)) {
		reads := r.policies[name].Reads()
		for _, header := range reads.Headers {
			if !r.had[name][header] {
				r.Notes = append(r.Notes, fmt.Sprintf(
					"%s reads the header %s, and none of its %s has it: if no policy read it when they were captured, Envoy did not send it, and it is missing here",
					name, header, count(r.asked[name], "captured request")))
			}
		}
		if reads.Uncacheable != "" {
			r.Notes = append(r.Notes, fmt.Sprintf("%s depends on more than the request (%s): some decisions may differ because of that", name, reads.Uncacheable))
		}
	}
	for _, name := range r.NoRoute {
		r.Notes = append(r.Notes, fmt.Sprintf("there is no route %s any more: its requests are skipped", name))
	}
}

func verdictOf(r authz.Recent) verdict {
	v := verdict{Outcome: r.Outcome, Reasons: r.Decision.Reasons}
	if r.Cause != nil {
		v.Cause = r.Cause.Error()
	}
	if r.Outcome == "allow" {
		v.Claims, v.Headers = r.Decision.Claims, r.Decision.Headers
	}
	return v
}

func differences(was, now verdict) (found []string) {
	if was.Outcome != now.Outcome {
		found = append(found, "outcome")
	}
	if !slices.Equal(was.Reasons, now.Reasons) {
		found = append(found, "reasons")
	}
	if !sameJSON(was.Claims, now.Claims) {
		found = append(found, "claims")
	}
	if !maps.Equal(was.Headers, now.Headers) {
		found = append(found, "headers")
	}
	return found
}

// sameJSON compares what two objects are as JSON.
func sameJSON(a, b map[string]any) bool {
	if len(a) == 0 && len(b) == 0 {
		return true
	}
	return reflect.DeepEqual(plainJSON(a), plainJSON(b))
}

func plainJSON(m map[string]any) (plain any) {
	text, err := json.Marshal(m)
	if err == nil {
		err = json.Unmarshal(text, &plain)
	}
	if err != nil {
		return err
	}
	return plain
}

func (r *replay) print(w io.Writer) error {
	var b strings.Builder
	turns := map[string]int{}
	for _, c := range r.Changed {
		user := c.User
		if user == "" {
			user = "nobody"
		}
		fmt.Fprintf(&b, "%s %s %s %s %s: ", c.ID, c.Route, user, c.Method, c.Path)
		if c.Was.Outcome != c.Now.Outcome {
			turn := c.Was.Outcome + " -> " + c.Now.Outcome
			turns[turn]++
			b.WriteString(turn + "\n")
		} else {
			turns["other "+strings.Join(c.Differences, " and ")]++
			b.WriteString(c.Now.Outcome + ", with other " + strings.Join(c.Differences, " and ") + "\n")
		}
		c.details(&b)
	}
	for _, note := range r.Notes {
		fmt.Fprintln(&b, "note:", note)
	}
	fmt.Fprintf(&b, "%s: %d decided as before, %d otherwise", count(r.Requests, "request"), r.Same, len(r.Changed))
	for i, turn := range slices.Sorted(maps.Keys(turns)) {
		b.WriteString([]string{" (", ", "}[min(i, 1)])
		fmt.Fprintf(&b, "%s: %d", turn, turns[turn])
	}
	if len(turns) > 0 {
		b.WriteString(")")
	}
	if r.Skipped > 0 {
		fmt.Fprintf(&b, ", %d skipped", r.Skipped)
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, onScreen(b.String()))
	return err
}

// details prints what differs beside the outcome, was before and now after.
func (c changed) details(b *strings.Builder) {
	if c.Now.Cause != "" {
		fmt.Fprintf(b, "    cause: %s\n", c.Now.Cause)
	}
	line := func(kind string, was, now any) {
		before, after := shortJSON(was), shortJSON(now)
		if before != after {
			fmt.Fprintf(b, "    %s: %s -> %s\n", kind, before, after)
		}
	}
	if slices.Contains(c.Differences, "reasons") {
		line("reasons", nonNil(c.Was.Reasons), nonNil(c.Now.Reasons))
	}
	if c.Was.Outcome != c.Now.Outcome {
		return // the others follow from that
	}
	if slices.Contains(c.Differences, "claims") {
		line("claims", c.Was.Claims, c.Now.Claims)
	}
	for _, name := range slices.Sorted(maps.Keys(union(c.Was.Headers, c.Now.Headers))) {
		was, had := c.Was.Headers[name]
		now, has := c.Now.Headers[name]
		switch {
		case !had:
			fmt.Fprintf(b, "    header %s: none -> %s\n", name, now)
		case !has:
			fmt.Fprintf(b, "    header %s: %s -> none\n", name, was)
		case was != now:
			fmt.Fprintf(b, "    header %s: %s -> %s\n", name, was, now)
		}
	}
}

func union(a, b map[string]string) map[string]string {
	both := maps.Clone(a)
	if both == nil {
		both = map[string]string{}
	}
	maps.Copy(both, b)
	return both
}

func shortJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	if len(text) > 200 {
		return strings.ToValidUTF8(string(text[:200]), "") + "..."
	}
	return string(text)
}
