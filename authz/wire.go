package authz

import (
	"errors"
	"unicode/utf8"
)

// The wire form of Envoy's question (envoy.service.auth.v3.CheckRequest), of which only what a decision needs is read, as substrings of
// one copy. What is accepted has the values that the generated parser gives. Where a field is given twice with a value each, which
// Envoy never does and parsers could take differently, the question is refused.

// errWire is the cause of every question that does not parse.
var errWire = errors.New("the question is not a CheckRequest that can be decided on")

// reader takes one field's value into the request.
type reader func(r *request, value string) error

// message reads the fields of a nested message, by their numbers. Fields without a reader are skipped.
func message(readers ...reader) reader {
	return func(r *request, value string) error {
		return fields(value, func(number uint64, value string) error {
			if number >= uint64(len(readers)) || readers[number] == nil {
				return nil
			}
			return readers[number](r, value)
		})
	}
}

// text takes a string that occurs once.
func text(to func(r *request) *string) reader {
	return func(r *request, value string) error {
		field := to(r)
		if *field != "" || !utf8.ValidString(value) {
			return errWire
		}
		*field = value
		return nil
	}
}

// refuse is for what makes a question one that is not understood.
func refuse(*request, string) error { return errWire }

var (
	wireHTTP = message([]reader{
		2: text(func(r *request) *string { return &r.method }),
		4: text(func(r *request) *string { return &r.target }),
		5: text(func(r *request) *string { return &r.authority }),
		6: text(func(r *request) *string { return &r.scheme }),
		13: func(r *request, value string) error {
			r.mapped = true
			return message(nil, (*request).addHeader)(r, value)
		},
	}...)
	wireAddress = message([]reader{
		1: message([]reader{2: text(func(r *request) *string { return &r.clientIP })}...),
		2: refuse, // a pipe or an internal listener: another member of the oneof, and no address of a client
		3: refuse,
	}...)
	wireAttributes = message([]reader{
		1:  message(nil, wireAddress),
		4:  message(nil, nil, wireHTTP),
		10: (*request).addExtension,
		12: message(nil, text(func(r *request) *string { return &r.sni })),
	}...)
	wireCheckRequest = message(nil, wireAttributes)
)

// addHeader takes a core.v3.HeaderValue: key 1, value 2, raw_value 3. Pseudo-headers are in fields of their own.
func (r *request) addHeader(value string) error {
	entry, err := entry(value)
	if err != nil || !utf8.ValidString(entry[1]) || !utf8.ValidString(entry[2]) {
		return errWire
	}
	if len(entry[1]) == 0 || entry[1][0] == ':' {
		return nil
	}
	if len(entry[3]) > 0 {
		entry[2] = entry[3]
	}
	r.headers = append(r.headers, header{entry[1], entry[2]})
	return nil
}

// addExtension takes an entry of the map context_extensions: key 1, value 2.
func (r *request) addExtension(value string) error {
	entry, err := entry(value)
	if err != nil {
		return err
	}
	switch entry[1] {
	case contextRoute:
		return text(func(r *request) *string { return &r.route })(r, entry[2])
	case contextRevision:
		return text(func(r *request) *string { return &r.revision })(r, entry[2])
	case contextBody:
		return text(func(r *request) *string { return &r.bodyLimit })(r, entry[2])
	}
	return nil
}

// entry reads a message of up to three strings. The last value of a field counts.
func entry(value string) (e [4]string, err error) {
	err = fields(value, func(number uint64, value string) error {
		if number < uint64(len(e)) {
			e[number] = value
		}
		return nil
	})
	return e, err
}

// fields calls f for every length-delimited field of an encoded message and skips the others (Protocol Buffers, Encoding).
func fields(text string, f func(number uint64, value string) error) error {
	for len(text) > 0 {
		tag, n := varint(text)
		if n == 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return errWire
		}
		text = text[n:]
		var size uint64
		switch tag & 7 {
		case 0:
			if _, n = varint(text); n == 0 {
				return errWire
			}
			size = uint64(n)
		case 1:
			size = 8
		case 5:
			size = 4
		case 2:
			if size, n = varint(text); n == 0 {
				return errWire
			}
			text = text[n:]
		default:
			return errWire // groups have no place in these messages
		}
		if size > uint64(len(text)) {
			return errWire
		}
		if tag&7 == 2 {
			if err := f(tag>>3, text[:size]); err != nil {
				return err
			}
		}
		text = text[size:]
	}
	return nil
}

// varint returns a number and how many bytes it takes, 0 when there is none.
func varint(text string) (v uint64, n int) {
	for i := 0; i < len(text) && i < 10; i++ {
		b := text[i]
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if i == 9 && b > 1 {
				return 0, 0
			}
			return v, i + 1
		}
	}
	return 0, 0
}
