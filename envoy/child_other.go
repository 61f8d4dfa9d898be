//go:build !linux

package envoy

import "syscall"

// childAttr: a process group of its own, so that a Ctrl-C in the terminal reaches Envoy through the drain only.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
