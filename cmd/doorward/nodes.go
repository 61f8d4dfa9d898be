package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"doorward/authz/admin"
	"doorward/authz/config"
	"doorward/xds/cert"
	"doorward/xds/node"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// nodesPath is where the admin API has the Envoys on other machines.
const nodesPath = "/v1/nodes"

// openNodes makes what knows the Envoys on other machines.
func (p *planes) openNodes(c *config.Config) error {
	ca, err := cert.NewAuthority(filepath.Join(c.DataDir, "nodes"), "CA of nodes")
	if err != nil {
		return err
	}
	p.nodes, err = node.New(node.Config{Store: p.store, CA: ca, Log: p.log})
	return err
}

// door opens control.listen; nil when there is none.
func (p *planes) door(c config.Control) (*node.Door, error) {
	if c.Listen == "" {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, fmt.Errorf("control.address: %w", err)
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("control.listen: %w", err)
	}
	return p.nodes.Open(l, host, node.ProtocolXDS, node.ProtocolAuthz, node.ProtocolStreams, node.ProtocolHTTP, node.ProtocolRenewal, node.ProtocolACME), nil
}

// grpcOptions are those of every gRPC server: who has connected is known, and a machine that has vanished is noticed. Envoys across a network ping
// as often as the bootstrap says.
func grpcOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(node.Credentials()),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	}
}

// caller tells authz which group's Envoy asks; those on this machine may ask about everything.
func caller(ctx context.Context) (group string, remote bool) {
	if n := node.FromContext(ctx); n != nil {
		return n.Group, true
	}
	return "", false
}

// ofGroup keeps a node from the pages of hosts that its group does not serve.
func (p *planes) ofGroup(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := node.FromContext(r.Context()); n != nil && !p.xds.Serves(n.Group, hostOf(r)) {
			p.log.Warn("a node asks for a page of a host that its group does not serve", "node", n.Name, "group", n.Group, "host", hostOf(r))
			http.Error(w, "421: this host is not served here", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func hostOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	return strings.ToLower(host)
}

// runNodes lets nodes in and ends what is revoked, until ctx ends.
func (p *planes) runNodes(ctx context.Context, group *errgroup.Group, d *node.Door) {
	group.Go(func() error { return p.nodes.Run(ctx) })
	if d == nil {
		return
	}
	group.Go(func() error { return d.Run(ctx) })
	runHTTP(ctx, group, d.Listener(node.ProtocolRenewal), p.nodes.RenewalHandler(), nil)
}

// nodeHandlers are the nodes' part of the admin API: GET /v1/nodes, POST /v1/nodes/{name} with group, life (a Go duration) and request (PKCS #10 as
// unpadded base64url), and POST /v1/nodes/{name}/revoke.
func (p *planes) nodeHandlers() map[string]http.Handler {
	return map[string]http.Handler{
		"GET " + nodesPath:                     http.HandlerFunc(p.listNodes),
		"POST " + nodesPath + "/{name}":        http.HandlerFunc(p.certifyNode),
		"POST " + nodesPath + "/{name}/revoke": http.HandlerFunc(p.revokeNode),
	}
}

func (p *planes) listNodes(w http.ResponseWriter, r *http.Request) {
	list, err := p.nodes.List(r.Context())
	if err != nil {
		writeFault(w, err)
		return
	}
	writeAnswer(w, map[string]any{"nodes": list})
}

// certified is the answer that has a node's certificate.
type certified struct {
	Node        node.Record `json:"node"`
	Certificate string      `json:"certificate"` // PEM
	CA          string      `json:"ca"`          // PEM
	Address     string      `json:"address"`     // control.address
}

func (p *planes) certifyNode(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	life, err := time.ParseDuration(q.Get("life"))
	if err != nil {
		admin.WriteRefusal(w, http.StatusBadRequest, errors.New("life must be a duration"))
		return
	}
	request, err := base64.RawURLEncoding.DecodeString(q.Get("request"))
	if err != nil {
		admin.WriteRefusal(w, http.StatusBadRequest, errors.New("request must be unpadded base64url"))
		return
	}
	p.mu.Lock()
	control := p.loaded.Control
	p.mu.Unlock()
	switch group := q.Get("group"); {
	case control.Listen == "":
		admin.WriteRefusal(w, http.StatusConflict, errors.New("no Envoy on another machine can reach this doorward: set control: {listen: ..., address: ...} and restart it"))
		return
	case group != "" && !slices.Contains(control.Groups, group):
		admin.WriteRefusal(w, http.StatusConflict, noSuchGroup(group))
		return
	}
	record, certificate, err := p.nodes.Certify(r.Context(), r.PathValue("name"), q.Get("group"), life, request)
	if err != nil {
		writeFault(w, err)
		return
	}
	p.log.Info("node certified by the operator", "node", record.Name, "group", record.Group, "generation", record.Generation, "until", record.Expires)
	writeAnswer(w, certified{record, string(certificate), string(p.nodes.Root()), control.Address})
}

func (p *planes) revokeNode(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	err := p.nodes.Revoke(r.Context(), name)
	if errors.Is(err, node.ErrUnknown) {
		admin.WriteRefusal(w, http.StatusNotFound, err)
		return
	}
	if err != nil {
		writeFault(w, err)
		return
	}
	p.log.Info("node revoked by the operator", "node", name)
	writeAnswer(w, struct{}{})
}
