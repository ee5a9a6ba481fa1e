# Winnow for CPUs. scripts/dockerfile-dryrun runs these steps without a container engine.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unversioned
RUN make build VERSION=$VERSION

FROM debian:bookworm-slim
COPY --from=build /src/bin/winnow /usr/local/bin/winnow
# Everybody who reaches the published port is served; Host headers other than loopback names need WINNOW_HOSTS.
ENV WINNOW_ADDR=0.0.0.0:11435 WINNOW_MODELS=/models WINNOW_IDENTITY=/models/.id_ed25519
# A volume here can be pulled into.
RUN install -d -o 65532 -g 65532 models
USER 65532:65532
EXPOSE 11435
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["/usr/local/bin/winnow", "version", "--server"]
ENTRYPOINT ["/usr/local/bin/winnow"]
CMD ["serve"]
