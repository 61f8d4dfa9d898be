package stream

import (
	"errors"
	"io"
	"log/slog"

	"doorward/authz/session"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// service is the gRPC face of a Server.
type service struct {
	extprocv3.UnimplementedExternalProcessorServer
	s *Server
}

// Process is one request: Envoy sends its headers, and is told to go on. From then on nothing is said until the request has ended, or has to.
func (v service) Process(g extprocv3.ExternalProcessor_ProcessServer) error {
	first, err := g.Recv()
	if err != nil {
		return err
	}
	if first.GetRequestHeaders() == nil {
		return status.Error(codes.InvalidArgument, "the first message is not the request's headers: the filter is not the one of this program")
	}
	ticket, request := read(first)
	if ticket == Nobody {
		return g.Send(goOn) // ended without an error: Envoy lets the request go on
	}
	st, err := v.s.begin(g.Context(), ticket)
	if err != nil {
		answer, level := refusal(err)
		v.s.Log.Log(g.Context(), level, "stream refused", "id", request, "cause", err)
		return g.Send(answer)
	}
	defer v.s.remove(st)
	if err := g.Send(goOn); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- awaitEnd(g) }()
	select {
	case err := <-ended:
		return err
	case reason := <-st.end:
		v.s.Log.Info("stream ended", "id", request, "session", session.HashID(st.id), "reason", reason.Error())
		return status.Error(codes.Aborted, reason.Error())
	}
}

// awaitEnd returns when the request has ended: with the upstream's trailers, or, as most do, without. Trailers get their answer here; nobody
// else sends anything meanwhile.
func awaitEnd(g extprocv3.ExternalProcessor_ProcessServer) error {
	next, err := g.Recv()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	if next.GetResponseTrailers() == nil {
		return status.Error(codes.InvalidArgument, "a message that was not asked for: the filter is not the one of this program")
	}
	return g.Send(&extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseTrailers{ResponseTrailers: &extprocv3.TrailersResponse{}}})
}

// read returns the ticket, "" for none, and the request's id as Envoy's log has it.
func read(first *extprocv3.ProcessingRequest) (ticket, request string) {
	ticket = first.GetMetadataContext().GetFilterMetadata()[Namespace].GetFields()[Key].GetStringValue()
	for _, h := range first.GetRequestHeaders().GetHeaders().GetHeaders() {
		if h.Key == "x-request-id" {
			request = string(h.RawValue)
		}
	}
	return ticket, request
}

// goOn lets a request through as it is.
var goOn = &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{}}}

// refusal answers a request whose stream may not begin. What a client can cause at will is no warning in the log.
func refusal(err error) (*extprocv3.ProcessingResponse, slog.Level) {
	code, text, level := typev3.StatusCode_ServiceUnavailable, "503: whether you may have this stream cannot be decided at the moment\n", slog.LevelWarn
	switch {
	case errors.Is(err, errMany):
		code, text, level = typev3.StatusCode_TooManyRequests, "429: your session has too many open streams: close some\n", slog.LevelInfo
	case errors.Is(err, errEnded):
		code, text, level = typev3.StatusCode_Unauthorized, "401: your session has ended\n", slog.LevelInfo
	}
	return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: &extprocv3.ImmediateResponse{
		Status: &typev3.HttpStatus{Code: code},
		Headers: &extprocv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{
			{Header: &corev3.HeaderValue{Key: "content-type", RawValue: []byte("text/plain; charset=utf-8")}},
			{Header: &corev3.HeaderValue{Key: "cache-control", RawValue: []byte("no-store")}},
		}},
		Body: []byte(text),
	}}}, level
}
