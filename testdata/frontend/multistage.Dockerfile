FROM --platform=$BUILDPLATFORM golang:1.22 AS build
ARG VERSION=dev
ARG TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN GOARCH=$TARGETARCH go build -ldflags "-X main.version=${VERSION}" -o /out/app .

FROM build AS test
RUN go test ./...

FROM scratch
LABEL org.opencontainers.image.version="$VERSION"
COPY --from=build /out/app /app
COPY --link --chmod=u=rw,go=r config/*.toml /etc/app/
ENTRYPOINT ["/app"]
CMD ["serve"]
