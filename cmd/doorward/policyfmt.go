package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"doorward/authz/policy"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
)

func policyFmtCommand() *cobra.Command {
	var f policyFmt
	cmd := &cobra.Command{
		Use:   "fmt PATH...",
		Short: "Write policies in their canonical form",
		Long: "Fmt formats Rego files, and the *.rego files in directories, tests too. It prints the result; --write changes the\n" +
			"files instead, --diff shows what would change, --check only says which files would, with exit status 1. What was\n" +
			"written for OPA before 1.0 (Rego v0) becomes Rego v1.",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: regoFiles,
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd.OutOrStdout(), args) },
	}
	cmd.Flags().BoolVarP(&f.write, "write", "w", false, "change the files")
	cmd.Flags().BoolVarP(&f.diff, "diff", "d", false, "show the changes")
	cmd.Flags().BoolVar(&f.check, "check", false, "name the files that are not formatted; the exit status is 1 if there are any")
	return cmd
}

type policyFmt struct{ write, diff, check bool }

// run formats every file that it can, and reports those that it cannot.
func (f policyFmt) run(w io.Writer, paths []string) error {
	files, err := regoBelow(paths)
	if err != nil {
		return err
	}
	var faults []error
	changed := 0
	for _, file := range files {
		differs, err := f.file(w, file)
		if err != nil {
			faults = append(faults, err)
		}
		if differs {
			changed++
		}
	}
	for _, err := range faults {
		fmt.Fprintln(w, onScreen(err.Error()))
	}
	if len(faults) > 0 || f.check && changed > 0 {
		return errReported
	}
	return nil
}

func (f policyFmt) file(w io.Writer, path string) (differs bool, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	formatted, err := policy.Format(path, text)
	if err != nil {
		return false, err
	}
	differs = !bytes.Equal(text, formatted)
	switch {
	case f.diff:
		_, err = w.Write(diff.Diff(path, text, path+" (formatted)", formatted))
	case f.check && differs:
		_, err = fmt.Fprintln(w, path)
	case !f.check && !f.write:
		_, err = w.Write(formatted)
	}
	if err == nil && f.write && differs {
		err = overwrite(path, formatted)
	}
	return differs, err
}

// overwrite replaces what is in a file and leaves its mode and what links to it alone.
func overwrite(path string, text []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, info.Mode().Perm())
}

// regoBelow returns the files, and the *.rego files below the directories, that are not hidden.
func regoBelow(paths []string) (files []string, err error) {
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		err = filepath.WalkDir(path, func(below string, d fs.DirEntry, err error) error {
			switch hidden := below != path && strings.HasPrefix(d.Name(), "."); {
			case err != nil:
				return err
			case hidden && d.IsDir():
				return fs.SkipDir
			case !hidden && !d.IsDir() && filepath.Ext(below) == ".rego":
				files = append(files, below)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there are no *.rego files in %s", strings.Join(paths, ", "))
	}
	return files, nil
}
