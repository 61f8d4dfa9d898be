package authz

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// codec hands the service the bytes of Envoy's question and sends the bytes of its answer, in place of building either as generated
// messages.
type codec struct{}

// wire is a message in its encoded form.
type wire struct{ text string }

// Name is the content subtype that Envoy asks for.
func (codec) Name() string { return "proto" }

// Unmarshal copies the message once, since gRPC takes its buffers back.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	w, ok := v.(*wire)
	if !ok {
		return fmt.Errorf("authz: decode %T: this server has only the authorization service", v)
	}
	b := data.MaterializeToBuffer(mem.NopBufferPool{})
	defer b.Free()
	w.text = string(b.ReadOnlyData())
	return nil
}

// Marshal sends the bytes as they are.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("authz: encode %T: this server has only the authorization service", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// streamWorkers are the goroutines that answer checks. They live on, so that the stack that evaluating a policy needs is grown once and
// not for each request; when all are busy, gRPC starts a goroutine of its own.
const streamWorkers = 16

// How much of questions may be under way. Fixed windows spare the pings by which gRPC finds out what a connection can carry: about one for
// each few checks, and a twentieth of a check's cost.
const (
	streamWindow     = 256 << 10 // bytes of one question
	connectionWindow = 4 << 20   // bytes of all questions of one of Envoy's worker threads
)

// NewGRPC returns a gRPC server that has the service envoy.service.auth.v3.Authorization and, because of codec, no other.
func (s *Server) NewGRPC(options ...grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(append(options,
		grpc.ForceServerCodecV2(codec{}), grpc.NumStreamWorkers(streamWorkers),
		grpc.StaticStreamWindowSize(streamWindow), grpc.StaticConnWindowSize(connectionWindow),
	)...)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.auth.v3.Authorization",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: handleCheck}},
		Metadata:    "envoy/service/auth/v3/external_auth.proto",
	}, s)
	return g
}

func handleCheck(server any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var in wire
	if err := decode(&in); err != nil {
		return nil, err
	}
	return server.(*Server).Check(ctx, in.text), nil
}
