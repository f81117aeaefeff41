"""From a compiled request to the model that answers it: `auto` is chosen, commands of the mock are checked."""

import msgspec

from contracts.llm import LlmRequest
from services.llm_worker.models import AUTO, ModelTable, Resolved
from services.llm_worker.providers.mock import check_commands

_ENCODE = msgspec.json.Encoder().encode


class Resolver:
    """Resolves requests by the model table."""

    def __init__(self, models: ModelTable) -> None:
        self.models = models

    def resolve(self, request: LlmRequest) -> Resolved:
        """What answers `request`. Raises Rejected: unknown_model, provider_missing, bad_id, invalid_request."""
        asked = request.model_id
        if asked == AUTO and AUTO not in self.models.ids():
            name = self.models.choose(request.params.complexity, len(_ENCODE(request.input.messages)))
            chosen = self.models.resolve(name)
            return chosen._replace(asked=asked, note=f"auto chose {name}")
        resolved = self.models.resolve(asked)
        if resolved.config.provider == "mock" and (request.params.mock or ":" in resolved.used):
            check_commands(resolved, request.params.mock)
        return resolved
