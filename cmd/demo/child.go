package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"doorward/envoy"
)

// stopWithin is longer than doorward takes to drain Envoy and end.
const stopWithin = 20 * time.Second

// tailLines and tailBytes bound what is shown of the log when doorward ends by itself.
const (
	tailLines = 20
	tailBytes = 8 << 10
)

// door is a running doorward.
type door struct {
	cmd  *exec.Cmd
	done chan error // what Wait returned; closed after that
}

// startDoorward runs doorward in a process group of its own, so that a Ctrl-C in the terminal ends it through stop and not before the demo
// knows of it.
func startDoorward(path string, args []string, log *os.File) (*door, error) {
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	ended, err := envoy.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("start doorward: %w", err)
	}
	d := &door{cmd: cmd, done: make(chan error, 1)}
	go func() {
		d.done <- <-ended
		close(d.done)
	}()
	return d, nil
}

// stop asks doorward to end, and makes it end when it does not. It returns when it is gone.
func (d *door) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // that it is gone already is as good
	select {
	case <-d.done:
	case <-time.After(stopWithin):
		_ = d.cmd.Process.Kill()
		<-d.done
	}
}

// arguments are doorward's.
func (d *demo) arguments() []string {
	args := []string{"up", "--config", d.path("doorward.yaml")}
	if d.envoy != "" {
		args = append(args, "--envoy", d.envoy)
	}
	return args
}

// tail is the end of the log.
func (d *demo) tail() string {
	text, err := os.ReadFile(d.path("doorward.log"))
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimRight(text[max(0, len(text)-tailBytes):], "\n")
	lines := bytes.Split(text, []byte{'\n'})
	return string(bytes.Join(lines[max(0, len(lines)-tailLines):], []byte{'\n'}))
}
