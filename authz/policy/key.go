package policy

import "encoding/binary"

// maxKey bounds a key. A request whose read parts are longer is decided without the cache.
const maxKey = 8 << 10

// key appends all that a decision can depend on: the policy, and every part of the input that the plan builds, each with its length, so
// that no two inputs that rules can tell apart have one key. What a session says of its user is named by the session and its version.
// It returns false where that is not so: a user without a session, or a route without a revision.
func (p *Policy) key(b []byte, in *Input) ([]byte, bool) {
	b = append(b, p.id[:]...)
	b = appendText(b, in.Route.Revision)
	b, ok := p.plan.person(b, in)
	if !ok {
		return b, false
	}
	if p.plan.documents&docRoute != 0 {
		if in.Route.Revision == "" {
			return b, false
		}
		b = appendText(b, in.Route.Name)
		b = appendText(b, in.Route.Host)
	}
	b = p.plan.asked(b, &in.Request)
	b, ok = p.plan.envoy(b, &in.Request)
	return b, ok && len(b) <= maxKey
}

// person appends the user and the session.
func (p *plan) person(b []byte, in *Input) ([]byte, bool) {
	b = append(b, flag(in.User != nil)<<1|flag(in.Session != nil))
	if p.documents&(docUser|docSession) == 0 {
		return b, true
	}
	s := in.Session
	if s == nil {
		return b, in.User == nil
	}
	if s.ID == "" {
		return b, false
	}
	b = appendText(b, s.ID)
	b = binary.BigEndian.AppendUint64(b, s.Version)
	if in.User != nil {
		b = appendText(b, in.User.ID)
	}
	if p.documents&docSession == 0 {
		return b, true
	}
	for _, seconds := range [...]int64{s.Created, s.Expires, s.AuthTime} {
		b = binary.BigEndian.AppendUint64(b, uint64(seconds))
	}
	b = appendText(b, s.ACR)
	b = binary.AppendUvarint(b, uint64(len(s.AMR)))
	for _, method := range s.AMR {
		b = appendText(b, method)
	}
	return b, true
}

// asked appends the parts of the request that are read.
func (p *plan) asked(b []byte, r *Request) []byte {
	for _, t := range p.request {
		b = appendText(b, t.value(r))
	}
	if p.query {
		b = appendText(b, r.Query)
	}
	names := p.headers
	if p.allHeaders && r.Names != nil {
		names = r.Names()
		b = binary.AppendUvarint(b, uint64(len(names)))
	}
	for _, name := range names {
		value, ok := r.header(name)
		if p.allHeaders {
			b = appendText(b, name)
		}
		b = append(b, flag(ok))
		b = appendText(b, value)
	}
	return b
}

// envoy appends what is read of the other parts of Envoy's question. It returns false where one cannot be read: building the input will say
// why.
func (p *plan) envoy(b []byte, r *Request) ([]byte, bool) {
	for _, part := range p.parts {
		var err error
		if b, err = part.key(b, r); err != nil {
			return b, false
		}
	}
	if p.attributes == nil {
		return b, true
	}
	k := &keyed{b: b}
	err := p.attributes.walk(r, k)
	return k.b, err == nil && k.err == nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}
