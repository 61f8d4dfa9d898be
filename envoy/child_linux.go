package envoy

import "syscall"

// childAttr: a process group of its own, so that a Ctrl-C in the terminal reaches Envoy through the drain only; and SIGTERM from the kernel when the
// thread that forked it ends (prctl(2), PR_SET_PDEATHSIG), so that no Envoy outlives a killed Doorward. The kernel drops the latter for a binary that
// has file capabilities: give CAP_NET_BIND_SERVICE to the service (ambient), not to the file.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
