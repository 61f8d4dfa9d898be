package config

import (
	"os"
	"path/filepath"
)

// jwksFile checks where the JWKS is written.
func (c *checker) jwksFile(p place) {
	path := c.c.JWT.JWKSFile
	switch {
	case path == "":
	case below(path, c.c.DataDir):
		c.add(p, "%s lies in data_dir, which nobody but doorward may enter; choose a directory that the application may read", path)
	case path == c.c.DecisionLog.To:
		c.add(p, "%s is decision_log.to too; name another", path)
	default:
		c.output(p, path)
	}
}

// output checks the path of a file that is written to, which is absolute. The file need not exist; its directory must. Everything that the
// configuration reads has been read.
func (c *checker) output(p place, path string) {
	if _, read := c.files.read[path]; read {
		c.add(p, "%s is a file of this configuration; name another", path)
		return
	}
	for dir := range c.files.dirs {
		if below(path, dir) {
			c.add(p, "%s lies in a directory of this configuration, where what is written would be taken for a change; choose another directory", path)
			return
		}
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		c.add(p, "%s is a directory; name a file in it", path)
		return
	}
	if dir := filepath.Dir(path); !exists(dir) {
		c.add(p, "the directory %s does not exist; create it or correct the path", dir)
	}
}
