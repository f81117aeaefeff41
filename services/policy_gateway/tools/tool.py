"""What every tool is: an async callable object that carries out one kind of plan."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

PlanT_contra = TypeVar("PlanT_contra", contravariant=True)


class Workspace(NamedTuple):
    """The real folders of one workspace; tools and people see `/code` and `/tmp`."""

    name: str
    code: Path
    tmp: Path
    profile: str


class Ticket(NamedTuple):
    """One permitted call. The deadline is a time of the event loop's clock and covers queue and clean-up too."""

    call_id: str
    role: str
    workspace: Workspace
    deadline_s: float


class Tool(Protocol[PlanT_contra]):
    """Carries out plans. A failure is `contracts.errors.Rejected` and shows virtual paths only.

    At the deadline everything that the call started is killed, then Rejected("timeout", timeout_ms=…) is raised.
    """

    async def run(self, plan: PlanT_contra, ticket: Ticket) -> dict[str, Any]:
        """Do it and return the value for the caller."""
        ...
