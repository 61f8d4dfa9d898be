// Package policies holds the Rego library that every policy may import: package data.doorward and below.
//
// It is only files; authz/policy compiles them together with the operator's.
package policies

import "embed"

// Library is the library's Rego files, in the folder "doorward". Files named *_test.rego are its tests.
//
//go:embed doorward/*.rego
var Library embed.FS
