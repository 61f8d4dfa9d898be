// Package envoy is the pinned stock Envoy: its bootstrap, finding its binary, running it as a child and asking its admin interface.
//
// The bootstrap is the same for every Envoy but for a name and a directory; what serves requests comes from package xds. The
// package never builds, patches or downloads an Envoy: fetch.sh does the last, from requirements.txt.
package envoy

// Version of the Envoy that Doorward is made for and tested with. requirements.txt pins the same.
const Version = "1.40.0"
