package policy

import "github.com/open-policy-agent/opa/v1/ast"

// The parts of each document of `input`, sorted. A part that is open holds names of the operator's or the client's choosing.
var (
	userParts    = []string{"claims", "email", "email_verified", "groups", "id", "name"}
	sessionParts = []string{"acr", "amr", "auth_time", "created", "expires", "id"}
	requestParts = []string{"client_ip", "headers", "host", "method", "path", "query", "scheme"}
	routeParts   = []string{"host", "labels", "name"}
)

// closed are the documents whose parts are all known.
var closed = map[document][]string{
	docInput:   {"request", "route", "session", "user"},
	docUser:    userParts,
	docSession: sessionParts,
	docRequest: requestParts,
	docRoute:   routeParts,
}

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
	}))
	return set
}

func schema(kind string) map[string]any { return map[string]any{"type": kind} }

func object(properties map[string]any) map[string]any {
	return map[string]any{"type": "object", "properties": properties}
}
