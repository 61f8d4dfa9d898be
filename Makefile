# make demo: the front door with a provider and an application behind it.   make test: everything that is tested.
export GOTOOLCHAIN := go1.27.3
export PATH := $(CURDIR)/.tools/bin:$(PATH)
ENVOY_VERSION := 1.40.0
ENVOY_BIN := $(CURDIR)/.tools/envoy-$(ENVOY_VERSION)/envoy
TOOL := go tool -modfile=.ci/tools.mod
DEMO_PORT ?= 8443
export DEMO_PORT

.PHONY: demo test setup build lint vuln unit e2e soak bench clean

demo: build $(ENVOY_BIN)
	@exec .tools/bin/demo

test: setup lint vuln unit

setup: $(ENVOY_BIN) .tools/keycloak-26.7.3/bin/kc.sh .tools/venv/ready .tools/node/ready .tools/bin/pebble

build:
	@command -v go >/dev/null || { echo "make: Go is missing: install it from https://go.dev/dl/ (any version from 1.21 fetches the pinned one)"; exit 1; }
	@mkdir -p .tools/bin && go build -o .tools/bin/ ./cmd/doorward ./cmd/demo

$(ENVOY_BIN):
	@sh envoy/fetch.sh

.tools/bin/pebble: .ci/tools.mod ; @mkdir -p .tools/bin && go build -modfile=.ci/tools.mod -o $@ github.com/letsencrypt/pebble/v2/cmd/pebble
.tools/keycloak-26.7.3/bin/kc.sh: ; @sh .ci/packages && sh deploy/keycloak/fetch.sh

# The verifiers in other languages that the identity JWT is held against, from pinned and hashed packages.
.tools/venv/ready: authz/token/testdata/interop/requirements.txt .ci/packages
	@sh .ci/packages
	@python3 -m venv .tools/venv && .tools/venv/bin/pip install -q --require-hashes --only-binary :all: -r $< && touch $@

.tools/node/ready: authz/token/testdata/interop/package-lock.json .ci/packages
	@sh .ci/packages
	@mkdir -p .tools/node && cp authz/token/testdata/interop/package*.json .tools/node/ && npm ci --silent --prefix .tools/node && touch $@

lint:
	@test -z "$$(gofmt -l cmd authz xds policies envoy deploy)" || { gofmt -d cmd authz xds policies envoy deploy; exit 1; }
	go vet ./...
	$(TOOL) staticcheck ./...

# The database of vulnerabilities is a pinned module, so that this needs no web service.
vuln:
	@test -d .tools/vulndb || { go mod download -modfile=.ci/tools.mod golang.org/x/vulndb && \
	  $(TOOL) indexdb -vulns "$$(go list -modfile=.ci/tools.mod -m -f '{{.Dir}}' golang.org/x/vulndb)/data/osv" -out .tools/vulndb; }
	$(TOOL) govulncheck -db "file://$(CURDIR)/.tools/vulndb" ./...

unit:
	DOORWARD_E2E=1 ENVOY=$(ENVOY_BIN) go test -race -count=1 -timeout 15m ./...

soak: setup
	DOORWARD_E2E=1 DOORWARD_SOAK=1 ENVOY=$(ENVOY_BIN) go test -count=1 -timeout 20m -run 'Soak|Property|Converge|Cached' ./...
	@.ci/fuzz

bench: $(ENVOY_BIN)
	@ENVOY=$(ENVOY_BIN) go test -run '^$$' -bench . -benchtime 1x ./cmd/doorward

clean:
	rm -rf .tools
