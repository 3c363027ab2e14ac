"""What the gateway counts and times. Names follow ``jetbridge.telemetry.metrics``."""

from __future__ import annotations

from jetbridge.telemetry.metrics import Metrics


class GatewayMetrics:
    """Every metric of one gateway process."""

    def __init__(self) -> None:
        self.all = Metrics("gateway")
        self.requests = self.all.counter(
            "http", "requests", "Requests answered, by route and status", ["route", "method", "status"]
        )
        self.duration = self.all.histogram(
            "http_duration", "seconds", "Time to answer; polls are held on purpose", ["route"]
        )
        self.refused = self.all.counter(
            "refused", "requests", "Requests answered with a problem, by its type", ["problem"]
        )
        self.held = self.all.gauge("held", "polls", "Polls held open now")
        self.offers = self.all.counter("made", "offers", "Offers made to waiting agents")
        self.messages = self.all.counter(
            "work", "messages", "Messages pulled from WORK, by what became of them", ["outcome"]
        )
        self.heartbeats = self.all.counter(
            "taken", "heartbeats", "Heartbeats answered, by the agent's role", ["role"]
        )
        self.accepted = self.all.counter("accepted", "leases", "Leases confirmed, repetitions included")
        self.reports = self.all.counter("taken", "reports", "Ends of leases recorded", ["outcome"])
        self.trigger_events = self.all.counter(
            "trigger_event", "messages", "Events of triggers passed on, by what became of them", ["outcome"]
        )
        self.boundary = self.all.counter(
            "boundary", "records", "Data of classes that policies decide about", ["data", "outcome"]
        )
        self.boundary_bytes = self.all.counter(
            "boundary", "bytes", "Their size, as far as it was looked at", ["data", "outcome"]
        )
        self.ended = self.all.counter(
            "ended", "agents", "Processes of agents whose end was told, by what they are since", ["health"]
        )
        self.lost = self.all.counter("lost", "leases", "Leases agents were told to stop")
        self.handover = self.all.histogram(
            "handover_delay", "seconds", "From the executor's publish to the offer, by both clocks"
        )
        self.accepting = self.all.histogram(
            "accept_delay", "seconds", "From the offer to its confirmed accept, by both gateways' clocks"
        )
        self.proxied = self.all.histogram(
            "proxy_duration", "seconds", "Time of requests passed on to Airflow", ["method", "status"]
        )
        self.presence_errors = self.all.counter(
            "presence", "errors", "Writes of agents' presence that Redis did not take"
        )
        self.lane_errors = self.all.counter("lane", "errors", "Failures of pulling work, each tried again")
        # As of the moment somebody asks; every gateway says the same, so take the maximum over them.
        self.waiting = self.all.gauge("waiting", "workloads", "Workloads that wait for an agent", ["queue"])
        self.running = self.all.gauge("running", "workloads", "Workloads that run under a lease", ["queue"])
        self.oldest = self.all.gauge(
            "oldest_waiting", "seconds", "How long the workload that waits longest has waited", ["queue"]
        )
        self.expiry = self.all.gauge(
            "token_expiry",
            "timestamp_seconds",
            "When an agent token ends; revoked ones are left out",
            ["token"],
        )
