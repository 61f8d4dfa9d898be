package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"doorward/authz/admin"
	"doorward/xds"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
)

// readDocuments makes the body of a change out of files. Relative paths in them are relative to each file; for a doorward on another machine to its own
// configuration.
func (f *pushFlags) readDocuments(stdin io.Reader, files []string) ([]byte, error) {
	var body applied
	for _, name := range files {
		found, err := documentFiles(name)
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			d := appliedDocument{File: path}
			var text []byte
			if path == "-" {
				d.File = "standard input"
				if d.Dir, err = os.Getwd(); err == nil {
					text, err = io.ReadAll(stdin)
				}
			} else if d.Dir, err = filepath.Abs(filepath.Dir(path)); err == nil {
				text, err = os.ReadFile(path)
			}
			if err != nil {
				return nil, err
			}
			if d.Text = string(text); f.running.server != "" {
				d.Dir = ""
			}
			body.Documents = append(body.Documents, d)
		}
	}
	return json.Marshal(body)
}

// documentFiles are the files that a name stands for: itself, or the YAML files of a directory.
func documentFiles(name string) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !strings.HasPrefix(e.Name(), ".") && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
			files = append(files, filepath.Join(name, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no file that ends in .yaml, .yml or .json", name)
	}
	return files, nil
}

// ask sends a change and reads the answer. Problems of the documents are printed as check prints them.
func (f *pushFlags) ask(cmd *cobra.Command, r admin.Request, answer *pushAnswer) error {
	client, err := f.running.client()
	if err != nil {
		return err
	}
	r.Within = f.wait + time.Minute // a large change takes its time
	err = client.Send(cmd.Context(), r, answer)
	var no *admin.Refusal
	if !errors.As(err, &no) || no.Body == nil {
		return err
	}
	var detail refusedChange
	if json.Unmarshal(no.Body, &detail) != nil || len(detail.Problems) == 0 {
		return err
	}
	if f.output != "table" {
		err = write(cmd.OutOrStdout(), f.output, detail)
	} else {
		for _, p := range detail.Problems {
			fmt.Fprintln(cmd.ErrOrStderr(), shown(p.String(), "\n"))
		}
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s; nothing is changed\n", count(len(detail.Problems), "problem"))
	}
	if err != nil {
		return err
	}
	return errReported
}

// send sends a change and prints what became of it.
func (f *pushFlags) send(cmd *cobra.Command, r admin.Request) error {
	var answer pushAnswer
	if err := f.ask(cmd, r, &answer); err != nil {
		return err
	}
	if err := printChange(cmd.OutOrStdout(), f.output, answer); err != nil {
		return err
	}
	states := make(map[string]bool)
	for _, a := range answer.Envoys {
		states[a.State] = true
	}
	switch {
	case states[xds.Rejected]:
		return errReported
	case states[xds.Waiting], answer.alone():
		return errNotYetDone
	}
	return nil
}

// alone says that Envoys were to be waited for and none is connected.
func (a pushAnswer) alone() bool { return a.Envoys != nil && len(a.Envoys) == 0 }

func printChange(w io.Writer, output string, answer pushAnswer) error {
	if output != "table" {
		return write(w, output, answer)
	}
	var b strings.Builder
	did := make(map[string][]string)
	for _, c := range answer.Changes {
		did[c.Action] = append(did[c.Action], c.Name)
		if c.Action != actionUnchanged {
			_, changed, _ := strings.Cut(string(diff.Diff("route "+c.Name, []byte(c.Before), "route "+c.Name, []byte(c.After))), "\n")
			b.WriteString(changed)
		}
	}
	would := ""
	if !answer.Applied {
		would = "would "
	}
	for _, action := range []string{actionCreate, actionUpdate, actionDelete} {
		if names := did[action]; len(names) > 0 {
			fmt.Fprintf(&b, "%s%s %s\n", would, action, few(names))
		}
	}
	if n := len(did[actionUnchanged]); n > 0 {
		fmt.Fprintf(&b, "%s as before\n", count(n, "route"))
	} else if len(answer.Changes) == 0 {
		fmt.Fprintln(&b, "no routes")
	}
	for _, a := range answer.Envoys {
		printEnvoyAnswer(&b, a)
	}
	if answer.alone() {
		fmt.Fprintln(&b, "no Envoy is connected; each gets it when it comes")
	}
	_, err := io.WriteString(w, shown(b.String(), "\n\t"))
	return err
}

// few names some of many.
func few(names []string) string {
	const some = 10
	if len(names) > some {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:some], ", "), len(names)-some)
	}
	return strings.Join(names, ", ")
}

func printEnvoyAnswer(w io.Writer, a xds.Answer) {
	switch a.State {
	case xds.Acknowledged:
		fmt.Fprintf(w, "envoy %s: acknowledged after %s\n", a.Node, a.Took.Round(time.Millisecond))
	case xds.Waiting:
		fmt.Fprintf(w, "envoy %s: has not acknowledged %s within %s; it is still on its way\n", a.Node, a.Waiting, a.Took.Round(time.Millisecond))
	case xds.Gone:
		fmt.Fprintf(w, "envoy %s: gone\n", a.Node)
	}
	for _, r := range a.Rejected {
		fmt.Fprintf(w, "envoy %s: rejected %s %q and keeps its last good version: %s\n", a.Node, r.Type, r.Resource, r.Message)
	}
}
