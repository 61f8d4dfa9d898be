package admin

import (
	"encoding/json"
	"fmt"
	"net/http"

	"doorward/authz/config"
)

// Fault is the JSON of an endpoint that does not do what was asked.
type Fault struct {
	Error    string           `json:"error"`
	Problems []config.Problem `json:"problems,omitempty"`
}

// WriteRefusal answers that something is not done, and why.
func WriteRefusal(w http.ResponseWriter, status int, err error) {
	WriteFault(w, status, Fault{Error: err.Error()})
}

// WriteFault answers as WriteRefusal does, with all that there is to say: a Fault, or what has its fields.
func WriteFault(w http.ResponseWriter, status int, fault any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(fault) // the client went away: nothing to do, nobody to tell
}

// inJSON has what the mux answers by itself, to a path or a method that it does not have, said in JSON.
func inJSON(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern == "" {
			w = &rephrased{ResponseWriter: w, asked: r}
		}
		mux.ServeHTTP(w, r)
	})
}

// rephrased answers in JSON in place of http.Error's text.
type rephrased struct {
	http.ResponseWriter
	asked *http.Request
}

// WriteHeader answers.
func (w *rephrased) WriteHeader(status int) {
	WriteRefusal(w.ResponseWriter, status, fmt.Errorf("there is no %s %s: GET /v1/openapi.json has what there is", w.asked.Method, w.asked.URL.Path))
}

// Write leaves the text out.
func (w *rephrased) Write(text []byte) (int, error) { return len(text), nil }
