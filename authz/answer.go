package authz

import (
	"fmt"
	"maps"
	"slices"

	"doorward/authz/policy"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// The wire form of our answer (envoy.service.auth.v3.CheckResponse): field numbers are those of Envoy's external_auth.proto.
const (
	responseStatus = 1 // google.rpc.Status
	responseDenied = 2 // DeniedHttpResponse
	responseOK     = 3 // OkHttpResponse
	responseData   = 4 // google.protobuf.Struct: dynamic metadata

	okHeaders         = 2
	okHeadersToRemove = 5
	okResponseHeaders = 6
	okSetQuery        = 7 // core.v3.QueryParameter
	okRemoveQuery     = 8

	deniedStatus  = 1 // type.v3.HttpStatus
	deniedHeaders = 2
	deniedBody    = 3

	optionHeader       = 1 // core.v3.HeaderValue
	optionAppendAction = 3
	valueKey           = 1
	valueText          = 2

	parameterKey   = 1 // of core.v3.QueryParameter
	parameterValue = 2

	appendIfExistsOrAdd    = 0 // HeaderValueOption.HeaderAppendAction
	overwriteIfExistsOrAdd = 2
	permissionDenied       = 7 // google.rpc.Code
)

// permission lets a request through with changes to its headers.
type permission struct {
	jwt         *minted // nil for none
	set         map[string]string
	cookie      string // replaces the Cookie header, "" leaves it
	remove      []string
	responseSet map[string]string
	setQuery    []policy.Parameter
	removeQuery []string
	metadata    []byte // see metadata
}

// encode returns bytes that may be shared: they are never changed.
func (p permission) encode() []byte {
	if p.jwt != nil && p.usual() {
		return p.jwt.answer
	}
	return p.build()
}

// usual says whether nothing is to be done but what minted.answer does.
func (p permission) usual() bool {
	return len(p.set)+len(p.responseSet)+len(p.metadata)+len(p.setQuery)+len(p.removeQuery) == 0 && p.cookie == "" && len(p.remove) == 1 && p.remove[0] == "cookie"
}

// build encodes the OkHttpResponse behind room for what comes before it, which has its length.
func (p permission) build() []byte {
	const room = 16
	out := make([]byte, room, room+1024+len(p.cookie)+len(p.metadata))
	if p.jwt != nil {
		out = append(out, p.jwt.option...)
	}
	out = options(out, okHeaders, p.set)
	if p.cookie != "" {
		out = option(out, okHeaders, "cookie", p.cookie)
	}
	for _, name := range p.remove {
		out = stringField(out, okHeadersToRemove, name)
	}
	out = options(out, okResponseHeaders, p.responseSet)
	for _, q := range p.setQuery {
		out = bytesField(out, okSetQuery, stringField(stringField(nil, parameterKey, q.Name), parameterValue, q.Value))
	}
	for _, name := range p.removeQuery {
		out = stringField(out, okRemoveQuery, name)
	}
	before := bytesField(make([]byte, 0, room), responseStatus, nil) // code 0
	before = protowire.AppendTag(before, responseOK, protowire.BytesType)
	before = protowire.AppendVarint(before, uint64(len(out)-room))
	out = out[room-len(before):]
	copy(out, before)
	if p.jwt != nil && p.jwt.metadata != nil {
		return withMetadata(out, slices.Concat(p.metadata, p.jwt.metadata)) // encoded messages put together are their union, and ours counts
	}
	return withMetadata(out, p.metadata)
}

// withMetadata appends the dynamic metadata of an answer, if there is any.
func withMetadata(answer, metadata []byte) []byte {
	if metadata == nil {
		return answer
	}
	return bytesField(answer, responseData, metadata)
}

// metadataLog is the name under which a policy's metadata stands once more, for Envoy's log: beside it there are Doorward's own, which say who is there
// and are for no log. It is xds.MetadataLog.
const metadataLog = "doorward.log"

// policyMetadata is what a policy says for logs, as an encoded google.protobuf.Struct; nil for nothing.
func policyMetadata(object map[string]any) ([]byte, error) {
	own, err := encodeMetadata(object)
	if own == nil {
		return nil, err
	}
	entry := bytesField(stringField(nil, entryKey, metadataLog), entryValue, bytesField(nil, valueStruct, own))
	return bytesField(own, structFields, entry), nil
}

// encodeMetadata is an object as an encoded google.protobuf.Struct. Numbers become doubles.
func encodeMetadata(object map[string]any) ([]byte, error) {
	if len(object) == 0 {
		return nil, nil
	}
	s, err := structpb.NewStruct(object)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return proto.Marshal(s)
}

// denial is an answer that does not reach the upstream.
type denial struct {
	status int
	header map[string]string // names in lower case
	body   []byte

	metadata []byte
}

func (d denial) encode() []byte {
	status := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(d.status))
	denied := bytesField(nil, deniedStatus, status)
	denied = options(denied, deniedHeaders, d.header)
	denied = bytesField(denied, deniedBody, d.body)
	code := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), permissionDenied)
	return withMetadata(bytesField(bytesField(nil, responseStatus, code), responseDenied, denied), d.metadata)
}

// options appends a HeaderValueOption for each header, in the order of their names.
func options(b []byte, field protowire.Number, headers map[string]string) []byte {
	if len(headers) == 0 {
		return b
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		b = option(b, field, name, headers[name])
	}
	return b
}

// option appends a HeaderValueOption that replaces whatever the client or the upstream sent under that name; a cookie for the client, and Vary, stand
// beside the upstream's. The value must be UTF-8: Envoy does not read raw_value in answers, and takes an answer whose strings are something
// else for none at all.
func option(b []byte, field protowire.Number, name, value string) []byte {
	const tag = 1 // byte of a field number below 16
	header := tag + protowire.SizeBytes(len(name)) + tag + protowire.SizeBytes(len(value))
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(tag+protowire.SizeBytes(header)+tag+1))
	b = protowire.AppendTag(b, optionHeader, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(header))
	b = stringField(stringField(b, valueKey, name), valueText, value)
	action := uint64(overwriteIfExistsOrAdd)
	if field == okResponseHeaders && (name == "set-cookie" || name == "vary") {
		action = appendIfExistsOrAdd
	}
	return protowire.AppendVarint(protowire.AppendTag(b, optionAppendAction, protowire.VarintType), action)
}

func bytesField(b []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), value)
}

func stringField(b []byte, field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), value)
}
