package authz

import "doorward/authz/stream"

// The wire form of google.protobuf.Struct and Value, of which a map's entry is a message with the fields key 1 and value 2.
const (
	structFields = 1
	entryKey     = 1
	entryValue   = 2
	valueString  = 3
	valueStruct  = 5
)

// withTicket returns the metadata of an allowed request. Where Envoy opens a stream for it that lives as long as the request does, so that the
// request can be ended with its session, it says whose session that is: see package stream.
func (s *Server) withTicket(req *request, v verdict) []byte {
	if !v.route.streams(req) {
		return v.metadata
	}
	ticket := stream.Nobody
	if v.session != nil {
		ticket = s.Sessions.Ticket(v.session)
	}
	entry := stringField(nil, entryKey, stream.Key)
	entry = bytesField(entry, entryValue, stringField(nil, valueString, ticket))
	// Encoded messages that follow one another are one with the fields of both. No policy has an entry of this name: package policy refuses it.
	return bytesField(append([]byte(nil), v.metadata...), structFields, entry)
}

// streams says whether Envoy may ask package stream about the request. It never says no where Envoy does: that would refuse the request.
func (r *route) streams(req *request) bool {
	if r.Streams || r.TCP() {
		return true
	}
	if !r.AllowWebsockets {
		return false
	}
	_, upgrade := req.visible("upgrade")
	return upgrade
}
