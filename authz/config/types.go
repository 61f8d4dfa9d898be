package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration reads from YAML as Go's time.ParseDuration does ("30s", "14h"); it is never negative. In JSON and YAML it is written in the
// same form.
type Duration time.Duration

func parseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil && strings.Trim(s, "0123456789") == "":
		return 0, fmt.Errorf("%q has no unit; write for example %q", shorten(s), shorten(s)+"s")
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration; write numbers with units as in 30s, 5m or 1h30m", shorten(s))
	case d < 0:
		return 0, fmt.Errorf("%q is negative; a duration is 0s or more", shorten(s))
	}
	return Duration(d), nil
}

// String is the duration as Go writes it, "1h30m0s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the duration as String does.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// MarshalYAML writes the duration as String does.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// Size is a number of bytes. It reads from YAML as a whole number with a unit ("100MiB"): B, KiB, MiB or GiB.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes Size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

func parseSize(s string) (Size, error) {
	for _, unit := range sizeUnits {
		number, ok := strings.CutSuffix(s, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/int64(unit.bytes) || number[0] == '+' {
			break
		}
		return Size(n) * unit.bytes, nil
	}
	return 0, fmt.Errorf("%q is not a size; write a whole number with a unit as in 64KiB, 100MiB or 1GiB", shorten(s))
}

// String is the size in the largest unit that leaves a whole number.
func (s Size) String() string {
	for _, unit := range sizeUnits {
		if s != 0 && s%unit.bytes == 0 {
			return strconv.FormatInt(int64(s/unit.bytes), 10) + unit.name
		}
	}
	return "0B"
}

// Share is a part of a whole, from 0 to 1.
type Share float64

func parseShare(s string) (Share, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= 1) {
		return 0, fmt.Errorf("%q is not a share; write a number from 0 to 1, as 0.1", shorten(s))
	}
	return Share(f), nil
}

// Secret is a string that prints as "[redacted]", whatever prints it. Its value is string(s).
type Secret string

const redacted = "[redacted]"

// String is "[redacted]".
func (s Secret) String() string { return redacted }

// Format writes "[redacted]" for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue is "[redacted]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON writes "[redacted]".
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalYAML writes "[redacted]".
func (s Secret) MarshalYAML() (any, error) { return redacted, nil }

func parseUnauthenticated(s string) (Unauthenticated, error) {
	switch u := Unauthenticated(s); u {
	case Login, Unauthorized, Forbidden:
		return u, nil
	}
	return "", fmt.Errorf("%q is not known; it is login, 401 or 403", shorten(s))
}

var errNoURL = errors.New("is empty; write a URL as https://host.example.com")
