"""What Prometheus reads. Labels are names of routes, statuses and reasons: nothing of a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clickintent.serve.service import Service

_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Telemetry:
    """Counts of requests, and what the service counts itself."""

    def __init__(self, service: Service, failures: Mapping[str, int]) -> None:
        """
        Args:
            failures: of work in the background, by its name.
        """
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "clickintent_requests",
            "Requests by route and status.",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "clickintent_request_seconds",
            "From the request's headers to the end of the answer.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._registry.register(_OfService(service, failures))

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)


class _OfService(Collector):
    def __init__(self, service: Service, failures: Mapping[str, int]) -> None:
        self._service, self._failures = service, failures

    def collect(self) -> Iterable[Metric]:
        service = self._service
        models, shadowed = service.models, service.scorer.shadowed
        events = CounterMetricFamily(
            "clickintent_events", "Events sent, by what became of them.", labels=["outcome"]
        )
        for outcome in ("accepted", "duplicate", "refused"):
            events.add_metric([outcome], service.counts[outcome])
        yield events
        refused = CounterMetricFamily("clickintent_events_refused", "By reason.", labels=["reason"])
        for reason, n in service.reasons.items():
            refused.add_metric([reason], n)
        yield refused
        background = CounterMetricFamily(
            "clickintent_background_failures", "Failed work in the background.", labels=["work"]
        )
        for name, n in self._failures.items():
            background.add_metric([name], n)
        yield background
        yield GaugeMetricFamily(
            "clickintent_waiting_sessions", "Sessions that wait to be scored.", service.scorer.waiting
        )
        model = GaugeMetricFamily(
            "clickintent_model_info", "Versions in use.", labels=["encoder", "taxonomy"]
        )
        model.add_metric([models.current.encoder.version, str(models.current.taxonomy.version)], 1)
        yield model
        for name, words, n in (
            ("model_reloads", "New artifacts taken into use.", models.reloads),
            ("model_reload_failures", "New artifacts that could not be used.", models.failures),
            ("shadow_sessions", "Sessions that the shadow scored, too.", shadowed.sessions),
            ("shadow_disagreements", "Those whose likeliest intent is another one.", shadowed.disagreements),
            ("shadow_skipped", "Those that the shadow was too slow for.", shadowed.skipped),
            ("shadow_failures", "Calls of the shadow that failed.", shadowed.failures),
        ):
            yield CounterMetricFamily(f"clickintent_{name}", words, n)
