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

// NewGRPC returns a gRPC server that has the service envoy.service.auth.v3.Authorization and, because of codec, no other.
func (s *Server) NewGRPC() *grpc.Server {
	g := grpc.NewServer(grpc.ForceServerCodecV2(codec{}), grpc.NumStreamWorkers(streamWorkers))
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
