"""What metrics show of a model that nobody has asked yet: zero calls, a closed breaker; a dashboard is not empty."""

from contracts.errors import Rejected
from services.llm_worker.models import ModelTable
from services.runtime.metrics import Metrics


def begin_series(metrics: Metrics, models: ModelTable) -> None:
    """Begin the series of every model of the table, before anything is counted or a breaker is known to be open."""
    for name in models.ids():
        try:
            resolved = models.resolve(name)
        except Rejected:
            continue  # its key is missing: it can have no calls
        model = resolved.shown
        metrics.inc("htdag_llm_requests_total", 0, provider=resolved.config.provider, model=model, outcome="ok")
        metrics.inc("htdag_llm_tokens_streamed_total", 0, model=model)
        metrics.set("htdag_llm_breaker_state", 0, model=resolved.used)
