package main

// gcPercent lets the heap grow to five times what lives before it is collected: what lives is small and steady, and the check path's garbage
// is short-lived. Measured with make bench against the default of 100.
const gcPercent = 400
