package authz

import (
	"fmt"
	"maps"
	"slices"

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

	deniedStatus  = 1 // type.v3.HttpStatus
	deniedHeaders = 2
	deniedBody    = 3

	optionHeader       = 1 // core.v3.HeaderValue
	optionAppendAction = 3
	valueKey           = 1
	valueText          = 2

	overwriteIfExistsOrAdd = 2 // HeaderValueOption.HeaderAppendAction
	permissionDenied       = 7 // google.rpc.Code
)

// permission lets a request through with changes to its headers.
type permission struct {
	identity    []byte // the encoded option that sets the identity JWT, nil for none
	set         map[string]string
	cookie      string // replaces the Cookie header, "" leaves it
	remove      []string
	responseSet map[string]string
	metadata    []byte // see metadata
}

func (p *permission) encode() []byte {
	ok := make([]byte, 0, len(p.identity)+512)
	if p.identity != nil {
		ok = bytesField(ok, okHeaders, p.identity)
	}
	ok = options(ok, okHeaders, p.set)
	if p.cookie != "" {
		ok = bytesField(ok, okHeaders, headerOption("cookie", p.cookie))
	}
	for _, name := range p.remove {
		ok = stringField(ok, okHeadersToRemove, name)
	}
	ok = options(ok, okResponseHeaders, p.responseSet)
	out := make([]byte, 0, len(ok)+len(p.metadata)+24)
	out = bytesField(out, responseStatus, nil) // code 0
	return withMetadata(bytesField(out, responseOK, ok), p.metadata)
}

// withMetadata appends the dynamic metadata of an answer, if there is any.
func withMetadata(answer, metadata []byte) []byte {
	if metadata == nil {
		return answer
	}
	return bytesField(answer, responseData, metadata)
}

// encodeMetadata is a policy's object as an encoded google.protobuf.Struct. Numbers become doubles.
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
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		b = bytesField(b, field, headerOption(name, headers[name]))
	}
	return b
}

// headerOption is a HeaderValueOption that replaces whatever the client sent under that name. The value must be UTF-8: Envoy does
// not read raw_value in answers, and takes an answer whose strings are something else for none at all.
func headerOption(name, value string) []byte {
	header := stringField(stringField(nil, valueKey, name), valueText, value)
	option := bytesField(nil, optionHeader, header)
	return protowire.AppendVarint(protowire.AppendTag(option, optionAppendAction, protowire.VarintType), overwriteIfExistsOrAdd)
}

func bytesField(b []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), value)
}

func stringField(b []byte, field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), value)
}
