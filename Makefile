# The verbs of the project. CONTRIBUTING.md says when to use which.
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c

GO          ?= go
BIN         := bin/winnow
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unversioned)
STATICCHECK ?= $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 60s
MODEL       ?= demo

.PHONY: run build test race fuzz bench conform cuda gpu-bundle lint image

# Builds, and serves the demo model (or MODEL=...) on 127.0.0.1:11435.
run: build
	./$(BIN) serve $(MODEL)

build:
	$(GO) build -ldflags '-X main.linked=$(VERSION)' -o $(BIN) ./cmd/winnow

test:
	$(GO) test ./...

# The kernels are C, which the race detector does not see, and the lists of cases run on one goroutine.
race:
	$(GO) test -race $$($(GO) list ./... | grep -v -e '/cpu$$' -e 'test$$' -e '/test/')

# Every fuzz target for FUZZTIME.
fuzz:
	GO='$(GO)' scripts/fuzz $(FUZZTIME)

# Every op beside the machine's roof, then the demo model as a whole.
bench: build
	$(GO) test -run '^$$' -bench . -benchtime 0.2s ./cpu
	./$(BIN) bench $(MODEL) -p 128 -n 32 -r 3

# Every device against the references, the models against their goldens, and a real client against the API.
conform:
	$(GO) test -count=1 ./quant/... ./tensor/... ./attention/... ./moe/... ./cpu/... ./model/... ./text/...
	$(GO) test -count=1 -timeout 30m ./test/... -slow

cuda gpu-bundle:
	@echo 'make $@: there is no CUDA device in this version of Winnow; it runs on the CPU.' >&2; exit 1

# The sizes that it prints are questions, not failures.
lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt: $$unformatted" >&2; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) test -count=1 -v . | grep -v '^=== '

image:
	docker build --build-arg VERSION=$(VERSION) -t winnow:$(VERSION) .
