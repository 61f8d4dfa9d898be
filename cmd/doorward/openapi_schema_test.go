package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http/httptest"
	"slices"
	"strings"
	"time"
)

// openAPI is what the tests read of the description.
type openAPI struct {
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]*schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	Responses map[string]struct {
		Content map[string]struct {
			Schema *schema `json:"schema"`
		} `json:"content"`
	} `json:"responses"`
}

// schema is the part of JSON Schema that the description uses. What else it may have, is an error of the test that reads it.
type schema struct {
	Ref         string             `json:"$ref"`
	Type        any                `json:"type"` // a name, or a list of them
	Description string             `json:"description"`
	Format      string             `json:"format"`
	Enum        []string           `json:"enum"`
	Properties  map[string]*schema `json:"properties"`
	Required    []string           `json:"required"`
	Additional  json.RawMessage    `json:"additionalProperties"`
	Items       *schema            `json:"items"`
}

// faults says where the answer of an operation, as "GET /v1/routes", is not as described. An answer may have nothing that is not described.
func (d openAPI) faults(pattern string, w *httptest.ResponseRecorder) []string {
	method, path, _ := strings.Cut(pattern, " ")
	answer, ok := d.Paths[path][strings.ToLower(method)].Responses[fmt.Sprint(w.Code)]
	if !ok {
		return []string{fmt.Sprintf("%s is not described to answer with %d: %s", pattern, w.Code, w.Body)}
	}
	kind, _, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
	content, ok := answer.Content[kind]
	if !ok {
		return []string{fmt.Sprintf("%d is not described to have the Content-Type %q", w.Code, kind)}
	}
	if !strings.HasSuffix(kind, "json") {
		return nil
	}
	var faults []string
	for decoder := json.NewDecoder(bytes.NewReader(w.Body.Bytes())); decoder.More(); {
		var value any
		if err := decoder.Decode(&value); err != nil {
			return append(faults, err.Error())
		}
		faults = append(faults, d.misfits(content.Schema, value, "answer")...)
	}
	return faults
}

// misfits says where a value does not fit a schema.
func (d openAPI) misfits(s *schema, value any, at string) (faults []string) {
	if s.Ref != "" {
		if s = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]; s == nil {
			return []string{at + ": a schema that there is not"}
		}
	}
	var types []string
	switch t := s.Type.(type) {
	case string:
		types = []string{t}
	case []any:
		for _, name := range t {
			types = append(types, name.(string))
		}
	}
	got := kindOf(value)
	if !slices.Contains(types, got) {
		return []string{fmt.Sprintf("%s is %s, want %v", at, got, types)}
	}
	switch v := value.(type) {
	case string:
		if s.Enum != nil && !slices.Contains(s.Enum, v) {
			faults = append(faults, fmt.Sprintf("%s is %q, want one of %v", at, v, s.Enum))
		}
		if _, err := time.Parse(time.RFC3339Nano, v); s.Format == "date-time" && err != nil {
			faults = append(faults, at+": "+err.Error())
		}
	case []any:
		for i, item := range v {
			faults = append(faults, d.misfits(s.Items, item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case map[string]any:
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				faults = append(faults, at+"."+name+" is missing")
			}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			faults = append(faults, d.misfits(s.property(name), v[name], at+"."+name)...)
		}
	}
	return faults
}

// property is the schema of a property: described, of any that are not, or of one that must not be.
func (s *schema) property(name string) *schema {
	if of, ok := s.Properties[name]; ok {
		return of
	}
	anything := &schema{Type: []any{"string", "boolean", "number", "integer", "null", "array", "object"}, Additional: json.RawMessage("true")}
	anything.Items = anything
	switch {
	case s.Additional == nil && s.Properties != nil:
		return &schema{Type: "nothing that is not described"}
	case s.Additional == nil, string(s.Additional) == "true":
		return anything
	}
	of := new(schema)
	if err := json.Unmarshal(s.Additional, of); err != nil {
		of.Type = err.Error()
	}
	return of
}

func kindOf(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case bool:
		return "boolean"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
	}
	return "number"
}
