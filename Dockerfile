# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
WORKDIR /src
RUN rustup target add wasm32-unknown-unknown
COPY . .
RUN cargo build --release --package tidegate --bin tidegate && cargo xtask guests

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --no-install-recommends -y ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --create-home --home-dir /var/lib/tidegate tidegate \
 && mkdir -p /var/lib/tidegate/guests/_default
COPY --from=build /src/target/release/tidegate /usr/bin/tidegate
COPY --from=build /src/target/guests/pulse.wasm /var/lib/tidegate/guests/_default/telemetry.wasm
COPY --from=build /src/target/guests/pulse.wasm /var/lib/tidegate/guests/_default/heartbeat.wasm
RUN chown -R tidegate:tidegate /var/lib/tidegate
USER tidegate
WORKDIR /var/lib/tidegate
EXPOSE 1883 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tidegate"]
CMD ["run"]
