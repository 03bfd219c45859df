"""What Prometheus reads at /metrics; the names are explained, beside vLLM's, in docs/serving.md."""

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from neo.inference.chat import ChatModel
from neo.version import __version__

FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
OUTCOMES = ("ok", "refused", "rejected", "cancelled", "timeout", "unavailable", "error")
REASONS = ("queue_full", "rate_limit_exceeded")
KINDS = ("address", "count", "damaged", "fetch", "format", "polyglot", "size", "thin")
WHOLE = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "neo_requests", "Requests for answers by how they ended.", ["outcome"], registry=registry
        )
        self.rejections = Counter("neo_rejections", "Requests refused at the door.", ["reason"], registry=registry)
        self.decode_errors = Counter(
            "neo_decode_errors", "Pictures refused, by what was wrong.", ["kind"], registry=registry
        )
        self.prompt_tokens = Counter("neo_prompt_tokens", "Tokens of prompts, pictures included.", registry=registry)
        self.picture_tokens = Counter("neo_picture_tokens", "Tokens of pictures.", registry=registry)
        self.cached_tokens = Counter(
            "neo_cached_prompt_tokens", "Tokens of prompts found in the cache.", registry=registry
        )
        self.generated_tokens = Counter("neo_generated_tokens", "Tokens said.", registry=registry)
        self.first_token = Histogram(
            "neo_time_to_first_token_seconds", "From arrival.", buckets=FIRST_TOKEN, registry=registry
        )
        self.between = Histogram(
            "neo_inter_token_seconds", "Between two tokens of an answer.", buckets=BETWEEN, registry=registry
        )
        self.whole = Histogram(
            "neo_request_seconds", "Of requests that were answered.", buckets=WHOLE, registry=registry
        )
        for counter, labels in ((self.requests, OUTCOMES), (self.rejections, REASONS), (self.decode_errors, KINDS)):
            for label in labels:
                counter.labels(label)  # 0 from the beginning, so that the first one is seen as a change
        self._engine = _EngineCollector()
        registry.register(self._engine)

    def watch(self, model: ChatModel, name: str) -> None:
        """Tell of this model's engine from now on."""
        self._engine.served = model, name

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector:
    """Reads the engine when it is asked."""

    served: tuple[ChatModel, str] | None = None
    """A model and its name; None while it loads."""

    def collect(self) -> Iterator[Metric]:
        alive = self.served is not None and self.served[0].engine.alive
        yield GaugeMetricFamily("neo_engine_up", "1 while the engine answers.", value=float(alive))
        if self.served is not None:
            yield from self._engine(*self.served)

    def _engine(self, served: ChatModel, name: str) -> Iterator[Metric]:
        engine, memory = served.engine, served.engine.memory
        yield GaugeMetricFamily("neo_requests_running", "Answers in the batch.", value=len(engine.running))
        yield GaugeMetricFamily("neo_requests_waiting", "Answers waiting for it.", value=len(engine.waiting))
        live = sum(store.capacity for store in list(memory.live))
        yield GaugeMetricFamily(
            "neo_cache_usage_ratio", "Of the cache, held by answers under way.", value=live / memory.capacity
        )
        yield GaugeMetricFamily("neo_cache_capacity_tokens", "That the cache can hold.", value=memory.capacity)
        yield GaugeMetricFamily(
            "neo_cache_kept_ratio",
            "Of the cache, kept for prompts that begin alike.",
            value=(memory.used - live) / memory.capacity,
        )
        yield CounterMetricFamily(
            "neo_preemptions", "Answers that gave their memory up and began anew.", value=engine.preemptions
        )
        info = {key: str(value) for key, value in about(served).items()}
        yield InfoMetricFamily("neo_model", "What is served.", {"name": name, **info})


def about(served: ChatModel) -> dict[str, str | int]:
    """What a model is, for metrics and log."""
    model = served.model
    return {
        "version": __version__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "context": model.config.text_config.max_position_embeddings,
    }
