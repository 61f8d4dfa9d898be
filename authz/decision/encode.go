package decision

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// Append appends the record's line, which ends in a newline, to b. It is the JSON that encoding/json writes for a Record, except that every
// character that could steer a terminal (C0, DEL and C1) is escaped. What is not UTF-8 becomes U+FFFD.
func Append(b []byte, r *Record) []byte {
	b = append(b, `{"time":"`...)
	b = r.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	b = field(b, `,"level":`, r.Level)
	b = field(b, `,"msg":`, r.Kind)
	b = field(b, `,"id":`, r.ID)
	b = field(b, `,"outcome":`, r.Outcome)
	if r.Status != 0 {
		b = strconv.AppendInt(append(b, `,"status":`...), int64(r.Status), 10)
	}
	b = field(b, `,"route":`, r.Route)
	b = field(b, `,"revision":`, r.Revision)
	b = given(b, `,"policy":`, r.Policy)
	b = given(b, `,"policy_digest":`, r.Digest)
	b = field(b, `,"method":`, r.Method)
	b = field(b, `,"host":`, r.Host)
	b = field(b, `,"path":`, r.Path)
	b = field(b, `,"client_ip":`, r.ClientIP)
	b = given(b, `,"subject":`, r.Subject)
	b = given(b, `,"email":`, r.Email)
	b = given(b, `,"session":`, r.Session)
	b = list(b, `,"reasons":`, r.Reasons)
	b = given(b, `,"cause":`, r.Cause)
	b = strconv.AppendInt(append(b, `,"took":`...), int64(r.Took), 10)
	b = given(b, `,"shadow_policy":`, r.ShadowPolicy)
	b = given(b, `,"shadow_outcome":`, r.ShadowOutcome)
	b = list(b, `,"shadow_reasons":`, r.ShadowReasons)
	b = list(b, `,"differences":`, r.Differences)
	return append(b, "}\n"...)
}

// field appends a key, which is given with all that stands before its value, and a string.
func field(b []byte, key, value string) []byte { return quote(append(b, key...), value) }

// given is field for a value that is left out when it is empty.
func given(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return field(b, key, value)
}

func list(b []byte, key string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(append(b, key...), '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = quote(b, v)
	}
	return append(b, ']')
}

const hexDigits = "0123456789abcdef"

// quote appends a JSON string (RFC 8259, section 7).
func quote(b []byte, s string) []byte {
	b = append(b, '"')
	done := 0 // what is before it has been appended
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < 0x7f {
			i++
			continue
		}
		r, size := rune(c), 1
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
			if plain(r, size) {
				i += size
				continue
			}
		}
		b = append(b, s[done:i]...)
		i += size
		done = i
		switch r {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default: // none lies beyond the basic plane
			b = append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
		}
	}
	b = append(b, s[done:]...)
	return append(b, '"')
}

// plain says whether a character beyond ASCII is written as it is. C1 controls are not, nor are the line separators that JavaScript takes
// for line breaks, and a byte that is no UTF-8 is U+FFFD of size 1.
func plain(r rune, size int) bool {
	return r > 0x9f && r != '\u2028' && r != '\u2029' && (r != utf8.RuneError || size > 1)
}
