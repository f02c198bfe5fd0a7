"""The server's figures in Prometheus's form. Labels are names of the server's own, so that they are bounded."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()
REQUESTS = Counter("preceptor_requests", "Requests answered", ["route", "status"], registry=REGISTRY)
LATENCY = Histogram(
    "preceptor_request_seconds",
    "Seconds until a request was answered",
    ["route"],
    registry=REGISTRY,
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600),
)
ROWS = Counter("preceptor_rows", "Rows by status", ["kind", "status"], registry=REGISTRY)
UNJUDGED = Counter("preceptor_door_unjudged", "Rows that a door gave no reward", ["door"], registry=REGISTRY)
IN_FLIGHT = Gauge("preceptor_rows_in_flight", "Rows that are being judged", registry=REGISTRY)
CLOSED = Counter(
    "preceptor_connections_closed", "Connections that were closed on a client", ["why"], registry=REGISTRY
)
