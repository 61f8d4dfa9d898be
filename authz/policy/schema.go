package policy

import "github.com/open-policy-agent/opa/v1/ast"

// The parts of each document of `input`, sorted. A part that is open holds names of the operator's or the client's choosing.
var (
	userParts    = []string{"claims", "email", "email_verified", "groups", "id", "name"}
	sessionParts = []string{"acr", "amr", "auth_time", "created", "expires", "id"}
	requestParts = []string{"client_ip", "headers", "host", "method", "path", "query", "scheme"}
	routeParts   = []string{"host", "labels", "name"}
	peerParts    = []string{"address", "certificate", "labels", "principal", "service"}
	socketParts  = []string{"address", "ipv4Compat", "namedPort", "networkNamespaceFilepath", "portValue", "protocol", "resolverName"}
)

// closed are the documents whose parts are all known.
var closed = map[document][]string{
	docInput: {
		"attributes", partCertificate, "parsed_body", "parsed_path", "parsed_query", "request", "route", "session", "source_principal",
		"truncated_body", "user", "version",
	},
	docUser:               userParts,
	docSession:            sessionParts,
	docRequest:            requestParts,
	docRoute:              routeParts,
	docAttributes:         {"contextExtensions", "destination", "metadataContext", "request", "routeMetadataContext", "source", "tlsSession"},
	docAttributesRequest:  {"http", "time"},
	docHTTP:               {"body", "fragment", "headers", "host", "id", "method", "path", "protocol", "query", "rawBody", "scheme", "size"},
	docSource:             peerParts,
	docSourceAddress:      {"socketAddress"},
	docSourceSocket:       socketParts,
	docDestination:        peerParts,
	docDestinationAddress: {"socketAddress"},
	docDestinationSocket:  socketParts,
}

// partCertificate is the part of the input that describes the client's certificate.
const partCertificate = "client_certificate"

// pluginParts are the parts of the input that only a policy for OPA's Envoy plugin names.
var pluginParts = []string{"attributes", "parsed_body", "parsed_path", "parsed_query", "source_principal", "truncated_body", "version"}

// schemas is the shape of `input` for OPA's type checker, as JSON Schema: a path that is not in it fails the load.
func schemas() *ast.SchemaSet {
	text, number, boolean := schema("string"), schema("number"), schema("boolean")
	open := schema("object")
	strings := map[string]any{"type": "array", "items": text}
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, object(map[string]any{
		"user": object(map[string]any{
			"id": text, "email": text, "email_verified": boolean, "name": text, "groups": strings, "claims": open,
		}),
		"session": object(map[string]any{
			"id": text, "created": number, "expires": number, "auth_time": number, "amr": strings, "acr": text,
		}),
		"request": object(map[string]any{
			"method": text, "scheme": text, "host": text, "path": text, "client_ip": text, "query": open, "headers": open,
		}),
		"route": object(map[string]any{"name": text, "host": text, "labels": open}),
		partCertificate: object(map[string]any{
			"subject": text, "issuer": text, "serial": text, "fingerprint": text,
			"dns_names": strings, "uris": strings, "emails": strings, "not_before": number, "not_after": number,
		}),
		"attributes": attributesSchema(), "parsed_path": strings, "parsed_query": open, "parsed_body": map[string]any{},
		"truncated_body": boolean, "source_principal": text, "version": object(map[string]any{"ext_authz": text, "encoding": text}),
	}))
	return set
}

// attributesSchema is the shape of what OPA's Envoy plugin makes of envoy.service.auth.v3.AttributeContext.
func attributesSchema() map[string]any {
	text, number, open := schema("string"), schema("number"), schema("object")
	peer := object(map[string]any{
		"service": text, "principal": text, "certificate": text, "labels": open,
		"address": object(map[string]any{"socketAddress": object(map[string]any{
			"address": text, "portValue": number, "namedPort": text, "protocol": number, "resolverName": text,
			"ipv4Compat": schema("boolean"), "networkNamespaceFilepath": text,
		})}),
	})
	return object(map[string]any{
		"source": peer, "destination": peer, "contextExtensions": open, "metadataContext": open, "routeMetadataContext": open,
		"tlsSession": object(map[string]any{"sni": text}),
		"request": object(map[string]any{
			"time": object(map[string]any{"seconds": number, "nanos": number}),
			"http": object(map[string]any{
				"id": text, "method": text, "path": text, "host": text, "scheme": text, "query": text, "fragment": text,
				"size": number, "protocol": text, "body": text, "rawBody": text, "headers": open,
			}),
		}),
	})
}

func schema(kind string) map[string]any { return map[string]any{"type": kind} }

func object(properties map[string]any) map[string]any {
	return map[string]any{"type": "object", "properties": properties}
}
