package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"doorward/authz/admin"
	"doorward/xds/cert"

	"github.com/spf13/cobra"
)

// howToTrust is for people; the file's path is filled in.
const howToTrust = `To trust the local CA (%[1]s), as root:
  Debian, Ubuntu   cp %[1]s /usr/local/share/ca-certificates/doorward.crt && update-ca-certificates
  Fedora, RHEL     trust anchor %[1]s
  macOS            security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain %[1]s
  Windows          certutil -addstore -f Root %[1]s
Firefox: Settings, Privacy & Security, Certificates, View Certificates, Authorities, Import.
curl: --cacert %[1]s. Whoever has the key beside it, ca.key, can pretend to be any host to those who trust it.
`

// caCommand needs no configuration, because a configuration may name the file that it writes.
func caCommand() *cobra.Command {
	var dataDir, out string
	cmd := &cobra.Command{
		Use:   "ca --data-dir DIR",
		Short: "Print the certificate of the local CA, which is made when there is none yet",
		Long: "Hosts under .localhost get their certificates from a CA that doorward makes for itself. To have a browser or a program\n" +
			"trust them, give it the certificate that this command prints. How, it says on standard error.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir := filepath.Join(dataDir, "ca")
			if _, err := cert.NewLocalCA(dir); err != nil {
				return err
			}
			text, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
			if err != nil {
				return err
			}
			file := filepath.Join(dir, "ca.pem")
			if out != "" {
				file = out
				err = replaceFile(out, text)
			} else {
				_, err = cmd.OutOrStdout().Write(text)
			}
			if err == nil {
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), howToTrust, file)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "the configuration's data_dir")
	_ = cmd.MarkFlagRequired("data-dir") // fails only for a flag that does not exist
	cmd.Flags().StringVar(&out, "out", "", "write to this file instead")
	return cmd
}

// healthCommand reads no configuration, so that one that is being edited makes nothing unhealthy.
func healthCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "health --data-dir DIR",
		Short: "Succeed when the running doorward has a configuration, for health checks",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := admin.NewClient(filepath.Join(dataDir, controlSocket)).Status(cmd.Context())
			if err != nil {
				return err
			}
			if status.Loaded == "" {
				return errors.New("no configuration is loaded yet")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "the configuration's data_dir")
	_ = cmd.MarkFlagRequired("data-dir")
	return cmd
}
