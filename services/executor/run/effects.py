"""What a run asks of the world, as data. Each names task and attempt: its id is the same after a crash.

While an effect with the same `key` is under way in this process, the host does not start it again.
"""

from typing import Any, ClassVar

import msgspec

from contracts.ledger import Charge
from contracts.llm import LlmRequest
from contracts.taint import Reading


class SendLlm(msgspec.Struct, frozen=True):
    """Store one LLM request durably; the answer comes back to the mailbox by itself. The id is its `corr_id`.

    `charge` says on whose account it goes; the budget of its epic is added when it is sent.
    """

    request: LlmRequest
    deadline_at_ms: int = 0
    charge: Charge = Charge()

    @property
    def key(self) -> str:
        """The id of the paid call."""
        return self.request.corr_id


class CancelLlm(msgspec.Struct, frozen=True):
    """Nobody waits for this call any more: it may stop."""

    corr_id: str
    node_id: str
    key: ClassVar[None] = None


class RunNoop(msgspec.Struct, frozen=True, gc=False):
    """Carry out a body that does nothing."""

    task_id: str
    attempt: int
    result: Any
    key: ClassVar[None] = None


class RunScript(msgspec.Struct, frozen=True):
    """Carry out the body of a lua node."""

    task_id: str
    attempt: int
    src: str
    argv: list[Any]
    context: dict[str, Any]
    timeout_ms: int

    @property
    def key(self) -> tuple[str, int, str]:
        """Task, attempt and step."""
        return (self.task_id, self.attempt, "body")


class RunStage(msgspec.Struct, frozen=True):
    """Carry out one stage of a strategy; `strategy` is `name@version`, `step` is where its result belongs."""

    task_id: str
    attempt: int
    step: str
    strategy: str
    stage: str
    context: dict[str, Any]

    @property
    def key(self) -> tuple[str, int, str]:
        """Task, attempt and step."""
        return (self.task_id, self.attempt, self.step)


class CallNats(msgspec.Struct, frozen=True):
    """Carry out the body of a nats node. `msg_id` lets a responder recognise the same call after a crash."""

    task_id: str
    attempt: int
    subject: str
    payload: Any
    publish_only: bool
    timeout_ms: int
    msg_id: str

    @property
    def key(self) -> tuple[str, int, str]:
        """Task, attempt and step."""
        return (self.task_id, self.attempt, "body")


class CallTool(msgspec.Struct, frozen=True):
    """Ask policy-gateway for one tool call. Run, task, attempt and call name it: asking again is no second call.

    `for_model` says that only a model reads the result, so that no more of it is kept than a model is shown. A `barred`
    one is asked for only to be refused, and recorded, where every call is.
    """

    task_id: str
    attempt: int
    call: int
    role: str
    tool: str
    args: Any
    opts: Any
    deadline_at_ms: int
    for_model: bool
    barred: bool = False

    @property
    def key(self) -> tuple[str, int, str]:
        """Task, attempt and the number of the call."""
        return (self.task_id, self.attempt, f"tool-{self.call}")


class WithdrawTools(msgspec.Struct, frozen=True):
    """Nobody needs the tool calls of this attempt any more that are under way: they are to end."""

    task_id: str
    attempt: int
    key: ClassVar[None] = None


class AskApproval(msgspec.Struct, frozen=True):
    """Ask identity to open a gate; asking again changes nothing. The answer comes back to the mailbox by itself."""

    gate_id: str
    task_id: str
    attempt: int
    title: str
    digest: str
    action: Any
    expires_at_ms: int
    approvers: list[str] = []
    read_from: list[Reading] = []
    read_more: int = 0

    @property
    def key(self) -> str:
        """The gate."""
        return self.gate_id


class WithdrawApproval(msgspec.Struct, frozen=True):
    """Nobody needs the answer of this gate any more."""

    gate_id: str
    reason: str
    key: ClassVar[None] = None


Effect = (
    SendLlm
    | CancelLlm
    | RunNoop
    | RunScript
    | RunStage
    | CallNats
    | CallTool
    | WithdrawTools
    | AskApproval
    | WithdrawApproval
)
