package authz

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

// What policies can read of Envoy's question beside what every decision needs. A part is read when a policy asks for it, out of the question's
// text, by the generated parser.

// Fields of CheckRequest, of its AttributeContext, and of what is in that.
const (
	fieldAttributes = 1

	fieldSource        = 1
	fieldDestination   = 2
	fieldRequest       = 4
	fieldExtensions    = 10
	fieldMetadata      = 11
	fieldTLSSession    = 12
	fieldRouteMetadata = 13

	fieldHTTP    = 2 // of request
	fieldBody    = 11
	fieldRawBody = 12
)

// attribute is policy.Request.Attribute of Envoy's question. It may be called at any time, by several goroutines.
func (r *request) attribute(name string) (map[string]any, error) {
	switch name {
	case "source":
		return r.message(fieldSource, new(authv3.AttributeContext_Peer))
	case "destination":
		return r.message(fieldDestination, new(authv3.AttributeContext_Peer))
	case "tlsSession":
		return r.message(fieldTLSSession, new(authv3.AttributeContext_TLSSession))
	case "metadataContext":
		return r.message(fieldMetadata, new(corev3.Metadata))
	case "routeMetadataContext":
		return r.message(fieldRouteMetadata, new(corev3.Metadata))
	case "request":
		return r.requestAttribute()
	case "contextExtensions":
		return r.extensions()
	}
	return nil, nil
}

// message is a nested message of the question as a map; nil when it is not there.
func (r *request) message(field uint64, m proto.Message) (map[string]any, error) {
	if there, err := r.parse(field, m); !there || err != nil {
		return nil, err
	}
	return plain(m.ProtoReflect()), nil
}

func (r *request) parse(field uint64, m proto.Message) (there bool, err error) {
	text, there, err := part(r.question, fieldAttributes, field)
	if err == nil && there {
		err = proto.Unmarshal([]byte(text), m)
	}
	if err != nil {
		return false, errWire // what the parser says of a client's text is nothing to show
	}
	return there, nil
}

// requestAttribute leaves the headers out: policies see them through Request.Headers, without our cookies.
func (r *request) requestAttribute() (map[string]any, error) {
	m := new(authv3.AttributeContext_Request)
	if there, err := r.parse(fieldRequest, m); !there || err != nil {
		return nil, err
	}
	if m.Http != nil {
		m.Http.Headers, m.Http.HeaderMap = nil, nil
	}
	return plain(m.ProtoReflect()), nil
}

func (r *request) extensions() (map[string]any, error) {
	text, _, err := part(r.question, fieldAttributes)
	if err != nil {
		return nil, err
	}
	var all map[string]any
	err = fields(text, func(number uint64, value string) error {
		if number != fieldExtensions {
			return nil
		}
		entry, err := entry(value)
		if err != nil || !utf8.ValidString(entry[1]) || !utf8.ValidString(entry[2]) {
			return errWire
		}
		if all == nil {
			all = make(map[string]any)
		}
		all[entry[1]] = entry[2]
		return nil
	})
	return all, err
}

// part is the text of a nested message, found by field numbers from the outside in. A message that is given several times is their texts one
// after the other: so they are merged (Protocol Buffers, Encoding, "Last One Wins").
func part(text string, path ...uint64) (string, bool, error) {
	for _, wanted := range path {
		found, there := "", false
		err := fields(text, func(number uint64, value string) error {
			if number == wanted {
				found, there = found+value, true
			}
			return nil
		})
		if err != nil || !there {
			return "", false, err
		}
		text = found
	}
	return text, true, nil
}

// plain is a message as OPA's Envoy plugin has it: fields that are set, under their protojson names, with numbers as numbers, enumerations as
// numbers and bytes in base64.
func plain(m protoreflect.Message) map[string]any {
	if s, ok := m.Interface().(*structpb.Struct); ok {
		return s.AsMap()
	}
	out := make(map[string]any)
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			entries := make(map[string]any)
			value.Map().Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
				entries[key.String()] = plainValue(field.MapValue(), v)
				return true
			})
			out[field.JSONName()] = entries
		case field.IsList():
			list := make([]any, value.List().Len())
			for i := range list {
				list[i] = plainValue(field, value.List().Get(i))
			}
			out[field.JSONName()] = list
		default:
			out[field.JSONName()] = plainValue(field, value)
		}
		return true
	})
	return out
}

func plainValue(field protoreflect.FieldDescriptor, value protoreflect.Value) any {
	switch v := value.Interface().(type) {
	case protoreflect.Message:
		return plain(v)
	case protoreflect.EnumNumber:
		return int64(v)
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case int32:
		return int64(v)
	case uint32:
		return int64(v)
	case float32:
		return float64(v)
	default: // string, bool, int64, uint64, float64
		return v
	}
}

// bodyNone is what Envoy's route says in place of a limit where a body is never sent: gRPC.
const bodyNone = "none"

// headerPartial is Envoy's word on whether it sent all of a body.
const headerPartial = "x-envoy-auth-partial-body"

// markPartial corrects headerPartial. Envoy stops waiting as soon as it has as many bytes as it may send, and then says that the body is whole,
// although more may follow. So a body of the full length is taken for the beginning of a longer one, unless its Content-Length says otherwise.
func (r *request) markPartial() error {
	if r.bodyLimit == "" || r.bodyLimit == bodyNone {
		return nil
	}
	limit, err := strconv.Atoi(r.bodyLimit)
	if err != nil {
		return errWire
	}
	http, _, err := part(r.question, fieldAttributes, fieldRequest, fieldHTTP)
	if err != nil {
		return err
	}
	size := 0
	if err := fields(http, func(number uint64, value string) error {
		if number == fieldBody || number == fieldRawBody {
			size = max(size, len(value))
		}
		return nil
	}); err != nil {
		return err
	}
	if length, _ := r.first("content-length"); size < limit || length == strconv.Itoa(size) {
		return nil
	}
	for i := range r.headers {
		if r.headers[i].name == headerPartial {
			r.headers[i].value = "true"
			return nil
		}
	}
	r.headers = append(r.headers, header{headerPartial, "true"})
	return nil
}
