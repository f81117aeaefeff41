"""The catalogue of error codes and the one error shape of htdag.

Every refusal and failure that leaves a service carries a code from `CATALOGUE`. On the wire an error is
`{"class": …, "code": …, "message": …, "hint": …, …detail}`. A message never holds a secret, a traceback or a
path of the host.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from contracts.task import NODE_TYPES, ROLES


class ErrorKind(NamedTuple):
    """What is true of every error with one code."""

    error_class: str
    message: str
    hint: str
    exit_code: int


OK, FAILED, USAGE, NOT_FOUND, DENIED, CONFLICT, BUDGET = 0, 1, 2, 3, 4, 5, 6
UNAVAILABLE, RETRY_LATER, BAD_CONFIG, TIMED_OUT = 69, 75, 78, 124

CATALOGUE: Final[Mapping[str, ErrorKind]] = {
    # requests
    "bad_request": ErrorKind("bad_request", "the request has the wrong shape", "compare it with subjects.md", USAGE),
    "bad_json": ErrorKind("bad_request", "the request is not JSON", "send one JSON object, UTF-8", USAGE),
    "bad_id": ErrorKind("bad_request", "an id is malformed", "use 1 to 64 of A-Z a-z 0-9 _ -", USAGE),
    "too_large": ErrorKind("bad_request", "the request is larger than allowed", "split it, or refer to a file", USAGE),
    "empty_goal": ErrorKind("bad_request", "the goal is empty", "say in a sentence what should be reached", USAGE),
    "unknown_role": ErrorKind("bad_request", "no such role", f"roles: {', '.join(ROLES)}", USAGE),
    "unknown_node_type": ErrorKind("bad_request", "no such node type", f"types: {', '.join(NODE_TYPES)}", USAGE),
    # graphs
    "cycle": ErrorKind("bad_graph", "the dependencies form a cycle", "remove one of the edges shown", USAGE),
    "unknown_dependency": ErrorKind("bad_graph", "a task depends on no task of this graph", "add it or drop it", USAGE),
    "duplicate_id": ErrorKind("conflict", "the id is taken by something else", "choose another id", CONFLICT),
    # look-ups and concurrency
    "not_found": ErrorKind("not_found", "there is no such thing", "list what there is", NOT_FOUND),
    "epic_not_found": ErrorKind("not_found", "there is no such epic", "`htdag epics list`", NOT_FOUND),
    "run_not_found": ErrorKind("not_found", "there is no such run", "`htdag runs list`", NOT_FOUND),
    "task_not_found": ErrorKind("not_found", "there is no such task", "`htdag tasks graph`", NOT_FOUND),
    "strategy_not_found": ErrorKind("not_found", "there is no such strategy", "`htdag strategies list`", NOT_FOUND),
    "not_completed": ErrorKind("conflict", "the task has no result yet", "wait for it: `htdag runs watch`", CONFLICT),
    "conflict": ErrorKind("conflict", "somebody else changed it first", "look again and repeat", CONFLICT),
    "already_finished": ErrorKind("conflict", "the run is over", "`htdag runs resume` or a new run", CONFLICT),
    "mailbox_full": ErrorKind("unavailable", "too many messages wait for this actor", "try again later", RETRY_LATER),
    # strategies and Lua
    "lua_error": ErrorKind("lua", "the Lua script failed", "run it with `htdag strategies try`", FAILED),
    "lua_syntax": ErrorKind("lua", "the Lua script does not compile", "mend the line shown; tables use =", USAGE),
    "lua_restricted": ErrorKind(
        "policy_violation", "the Lua script reaches for what the sandbox does not have", "use plain Lua only", DENIED
    ),
    "lua_memory": ErrorKind("lua", "the Lua script used too much memory", "build smaller values", FAILED),
    "lua_timeout": ErrorKind("lua", "the Lua script ran past its deadline", "bound its loops", TIMED_OUT),
    "lua_bad_result": ErrorKind("lua", "the Lua script returned the wrong shape", "return the table shown", FAILED),
    "no_agents": ErrorKind("lua", "the strategy spawned no agent", "return at least one agent", FAILED),
    # execution
    "timeout": ErrorKind("timeout", "it did not end before its deadline", "raise the timeout or look why", TIMED_OUT),
    "cancelled": ErrorKind("cancelled", "it was cancelled", "", FAILED),
    "rework_exhausted": ErrorKind("failed", "the completion gate refused every rework", "see required_fixes", FAILED),
    "tool_limit_exceeded": ErrorKind(
        "failed", "the agent asked for more tool calls than an attempt may make", "split the task", FAILED
    ),
    "child_failed": ErrorKind("failed", "a child failed", "see the child", FAILED),
    "forbidden_subject": ErrorKind(
        "policy_violation",
        "a nats node may not speak to this subject",
        "closed is what begins with htdag. llm. ai. _INBOX or $",
        DENIED,
    ),
    "no_responders": ErrorKind("unavailable", "nobody answers on this subject", "start the responder", UNAVAILABLE),
    "bad_reply": ErrorKind("failed", "the responder's reply is not JSON", "answer with JSON", FAILED),
    # policy: what the gateway refuses
    "bad_args": ErrorKind("policy_violation", "the tool's arguments have the wrong shape", "see field", DENIED),
    "bad_timeout": ErrorKind("policy_violation", "the timeout is no number of milliseconds", "use 1 or more", DENIED),
    "role_mismatch": ErrorKind(
        "policy_violation", "the call names another role than its task has", "roles come from the task alone", DENIED
    ),
    "forbidden_tool": ErrorKind(
        "policy_violation", "the role does not have this tool", "`htdag policy roles` shows who may what", DENIED
    ),
    "timeout_exceeded": ErrorKind(
        "policy_violation", "the timeout is longer than the role may have", "ask for max or less", DENIED
    ),
    "dangerous_git_operation": ErrorKind(
        "policy_violation", "this git command could lose or leak history", "see detail for what matched", DENIED
    ),
    "forbidden_command": ErrorKind(
        "policy_violation",
        "the role may not run this command",
        "see allowed; code on the command line is closed",
        DENIED,
    ),
    "forbidden_path": ErrorKind(
        "policy_violation", "the path is outside of what tools may touch", "use /code/... or /tmp/...", DENIED
    ),
    "write_access_denied": ErrorKind("policy_violation", "the role may not write files", "only read", DENIED),
    "forbidden_url": ErrorKind(
        "policy_violation", "this URL is not open to the role", "`htdag policy roles` lists the hosts", DENIED
    ),
    "docker_resource_limits_required": ErrorKind(
        "policy_violation", "docker needs cpu and mem", 'say for example "cpu": 2, "mem": "2g"', DENIED
    ),
    "forbidden_image": ErrorKind(
        "policy_violation", "this image is not on the list", "`htdag policy roles` lists the images", DENIED
    ),
    "forbidden_mount": ErrorKind("policy_violation", "this mount is closed", "mount /code or below, read-only", DENIED),
    "resolved_address_denied": ErrorKind(
        "policy_violation", "the host's address is not a public one", "private and local networks are closed", DENIED
    ),
    "too_many_redirects": ErrorKind("policy_violation", "too many redirects", "name the last URL", DENIED),
    "call_limit_exceeded": ErrorKind(
        "policy_violation", "the task has used up its calls of this tool", "work with what there is", DENIED
    ),
    "approval_required": ErrorKind(
        "policy_violation",
        "this needs the approval of a human",
        "as a task it waits for one: `htdag run FILE`, then `htdag approvals grant`",
        DENIED,
    ),
    # policy: what went wrong while a tool that was allowed ran
    "stale_attempt": ErrorKind("conflict", "the task is not at this attempt any more", "stop: nobody waits", CONFLICT),
    "call_not_requested": ErrorKind(
        "conflict", "the run's log has no such call of this task", "the executor alone makes a task's calls", CONFLICT
    ),
    "workspace_not_found": ErrorKind(
        "not_found", "there is no such workspace", "`htdag run --workspace DIR`, or make the folder", NOT_FOUND
    ),
    "workspace_full": ErrorKind(
        "execution",
        "the workspace holds more than it may",
        "remove what is not needed, or raise policy.workspace_bytes or policy.workspace_files",
        FAILED,
    ),
    "file_not_found": ErrorKind("execution", "there is no such file", "list the folder", NOT_FOUND),
    "not_regular_file": ErrorKind("execution", "this is no regular file", "name a file", FAILED),
    "file_error": ErrorKind("execution", "the file cannot be read or written", "see reason", FAILED),
    "program_not_found": ErrorKind("execution", "this program is not installed", "see program", NOT_FOUND),
    "program_failed": ErrorKind(
        "execution", "the program ended with a bad exit code", "see exit and stdout; node.fails_on_exit decides", FAILED
    ),
    "image_not_found": ErrorKind(
        "execution", "the engine does not have this image", "`htdag policy image` builds one", NOT_FOUND
    ),
    "docker_unavailable": ErrorKind(
        "execution", "no Docker engine answers", "start one, or set DOCKER_HOST; `htdag doctor`", UNAVAILABLE
    ),
    "container_refused": ErrorKind(
        "execution", "the Docker engine cannot make this container", "see reason: more mem, or another mount", FAILED
    ),
    "sandbox_unavailable": ErrorKind(
        "execution", "the sandbox cannot be built, so nothing was run", "`htdag doctor` says why", UNAVAILABLE
    ),
    "fetch_failed": ErrorKind("execution", "the page could not be fetched", "see reason", FAILED),
    "call_interrupted": ErrorKind(
        "execution", "the gateway died during this call: it may have happened", "look before you repeat it", FAILED
    ),
    "call_withdrawn": ErrorKind(
        "cancelled", "the task of this call is over: it was stopped", "part of it may have happened", FAILED
    ),
    "audit_broken": ErrorKind("internal", "the audit chain is broken", "somebody changed the log: see where", FAILED),
    # identity: proofs. Whoever fails hears one text; the code beside it is for programs.
    "invalid_code": ErrorKind("identity", "the code is not right", "codes of this and the last half minute", DENIED),
    "code_reused": ErrorKind("identity", "this code was used already", "wait for the next code", DENIED),
    "rate_limited": ErrorKind("identity", "too many attempts within a minute", "see retry_after", RETRY_LATER),
    "locked": ErrorKind(
        "identity", "the account is locked", "wait until `until`, or `htdag users unlock` on the host", DENIED
    ),
    "agent_cannot_approve": ErrorKind("identity", "agents do not approve", "ask a human", DENIED),
    "not_an_approver": ErrorKind("identity", "this gate is for others to answer", "see approvers", DENIED),
    # identity: accounts
    "bad_name": ErrorKind(
        "bad_request", "the name is malformed", "begin with a letter; then letters, digits, _ or -, 64 at most", USAGE
    ),
    "user_not_found": ErrorKind("not_found", "there is no such account", "`htdag users list`", NOT_FOUND),
    "mfa_already_enabled": ErrorKind(
        "conflict", "two-factor proof is on already", "disable it with a code, or reset it on the host", CONFLICT
    ),
    "mfa_not_enabled": ErrorKind("conflict", "two-factor proof is not on", "`htdag users setup`", CONFLICT),
    "mfa_not_set_up": ErrorKind("conflict", "no set-up is under way", "POST /auth/mfa/setup/ first", CONFLICT),
    "password_already_set": ErrorKind("conflict", "the account has a password", "sign in with it", CONFLICT),
    "weak_password": ErrorKind("bad_request", "the password is too short or too long", "8 to 1024 characters", USAGE),
    "wrong_password": ErrorKind("identity", "name and password do not fit", "try again", DENIED),
    "not_signed_in": ErrorKind(
        "identity", "this needs a session", "POST /auth/session/, then Authorization: Bearer …", DENIED
    ),
    "bad_link": ErrorKind(
        "identity", "the set-up link is not valid any more", "on its host: `htdag users setup NAME`", DENIED
    ),
    "not_local": ErrorKind("identity", "only for callers on this host itself", "use http://127.0.0.1", DENIED),
    "not_for_agents": ErrorKind("identity", "agents may not do this", "a human does", DENIED),
    "bad_credential": ErrorKind("identity", "the agent's credential is not right", "it is shown at creation", DENIED),
    "accounts_lost": ErrorKind(
        "config",
        "accounts of identity are lost",
        "put the broker's store back from its copy; or begin with a new owner: `htdag users begin-anew`",
        BAD_CONFIG,
    ),
    "own_code_only": ErrorKind("identity", "an agent reads its own code only", "name nobody", DENIED),
    # identity: gates
    "approval_not_found": ErrorKind("not_found", "there is no such gate", "`htdag approvals list`", NOT_FOUND),
    "approval_granted": ErrorKind("conflict", "this gate was released already", "look at it", CONFLICT),
    "approval_denied": ErrorKind("denied", "a human denied this action", "see reason", DENIED),
    "approval_expired": ErrorKind("timeout", "nobody approved this in time", "ask again", TIMED_OUT),
    "approval_stale": ErrorKind("conflict", "the action is not the one that was shown", "look at it again", CONFLICT),
    "approval_not_genuine": ErrorKind(
        "denied", "this release is not signed by identity", "look who may write to this mailbox", DENIED
    ),
    "approval_withdrawn": ErrorKind("conflict", "nobody waits for this gate any more", "", CONFLICT),
    # llm
    "invalid_request": ErrorKind("llm", "the LLM request is invalid", "see field", USAGE),
    "missing_param": ErrorKind("llm", "the LLM request lacks a parameter", "see param", USAGE),
    "model_mismatch": ErrorKind("llm", "the subject and the body name different models", "name one", USAGE),
    "unknown_model": ErrorKind("llm", "no such model", "`htdag llm models` lists them", NOT_FOUND),
    "llm_unavailable": ErrorKind("llm", "no llm-worker answers", "`htdag ps`; start llm-worker", UNAVAILABLE),
    "provider_auth": ErrorKind("llm", "the provider refused the key", "check the key of this provider", BAD_CONFIG),
    "provider_rejected": ErrorKind("llm", "the provider refused the request", "see detail", FAILED),
    "provider_overloaded": ErrorKind("llm", "the provider is overloaded", "it is tried again by itself", RETRY_LATER),
    "provider_error": ErrorKind("llm", "the provider failed", "it is tried again by itself", RETRY_LATER),
    "provider_unreachable": ErrorKind("llm", "the provider cannot be reached", "check its URL and the network", FAILED),
    "provider_malformed": ErrorKind("llm", "the provider's answer cannot be read", "look at its log", FAILED),
    "output_invalid": ErrorKind(
        "llm", "the answer does not keep to response_schema", "see output; ask again, or another model", FAILED
    ),
    "provider_overran": ErrorKind(
        "llm",
        "the provider said more than max_tokens allows and was stopped",
        "it does not keep max_tokens: look at it before it is asked again",
        FAILED,
    ),
    "circuit_open": ErrorKind(
        "llm", "this model failed too often and is left alone for a while", "wait `retry_after` seconds", RETRY_LATER
    ),
    "provider_missing": ErrorKind("llm", "the provider's program or key is not there", "see detail", BAD_CONFIG),
    "price_unknown": ErrorKind(
        "llm",
        "nobody knows the price of this model, and a budget must hold",
        "set price_in_usd_per_mtok and price_out_usd_per_mtok, or allow_unpriced",
        BAD_CONFIG,
    ),
    "budget_exceeded": ErrorKind("budget", "the budget does not have that much left", "see scope; raise it", BUDGET),
    "epic_budget_exceeded": ErrorKind(
        "budget", "the epic's budget does not have that much left", "raise it, then `htdag runs resume`", BUDGET
    ),
    "rate_limit_exceeded": ErrorKind(
        "budget", "too many requests in the last minute", "try again after retry_after seconds", RETRY_LATER
    ),
    "model_missing": ErrorKind("llm", "the model's weights are not there", "`htdag models pull smollm2`", BAD_CONFIG),
    # infrastructure
    "nats_unavailable": ErrorKind("unavailable", "no NATS server answers", "start it: `htdag up`", UNAVAILABLE),
    "jetstream_unavailable": ErrorKind("unavailable", "NATS has no JetStream", "start it with -js", UNAVAILABLE),
    "nats_denied": ErrorKind("unavailable", "NATS refused these credentials", "check NATS_URL", BAD_CONFIG),
    "service_unavailable": ErrorKind("unavailable", "the service does not answer", "`htdag ps`", UNAVAILABLE),
    "storage_full": ErrorKind(
        "unavailable",
        "the broker cannot store more",
        "free disk space, then `htdag doctor --mend` (a broker that was full must be started anew)",
        FAILED,
    ),
    "stream_missing": ErrorKind(
        "unavailable", "the broker lacks a stream that htdag needs", "`htdag bus apply` makes it", UNAVAILABLE
    ),
    "stream_differs": ErrorKind(
        "conflict", "a stream exists with other settings", "`htdag bus apply --diff`", CONFLICT
    ),
    "port_in_use": ErrorKind("config", "the port is taken", "choose another with --port, or --port 0", BAD_CONFIG),
    "already_running": ErrorKind("config", "this home is running already", "`htdag down`, or another --home", CONFLICT),
    "not_running": ErrorKind("not_found", "nothing runs in this home", "`htdag up`", NOT_FOUND),
    "bad_config": ErrorKind("config", "the configuration is wrong", "`htdag config show`", BAD_CONFIG),
    "missing_dependency": ErrorKind("config", "something needed is not installed", "see detail", BAD_CONFIG),
    "poison": ErrorKind("internal", "a stored message cannot be read", "`htdag bus dlq ls`", FAILED),
    "replay_differs": ErrorKind("internal", "the replay does not reach the recorded state", "report it", FAILED),
    "internal": ErrorKind("internal", "htdag made a mistake", "see the service's log for this id", FAILED),
}


class Rejected(Exception):
    """A refusal with a code of the catalogue. It is a value of the protocol, not a crash.

    `detail` is merged into the wire error and must be JSON data.
    """

    def __init__(self, code: str, message: str | None = None, **detail: Any) -> None:
        self.code = code
        self.kind = CATALOGUE[code]
        self.message = message if message is not None else self.kind.message
        self.detail = detail
        super().__init__(f"{code}: {self.message}")

    def to_wire(self) -> dict[str, Any]:
        """The error as it stands in a reply, an answer or an event."""
        return failure(self.code, self.message, **self.detail)


def failure(code: str, message: str | None = None, **detail: Any) -> dict[str, Any]:
    """Build a wire error: class, code, message, hint, then the detail."""
    kind = CATALOGUE[code]
    wire: dict[str, Any] = {"class": kind.error_class, "code": code, "message": message or kind.message}
    if kind.hint:
        wire["hint"] = kind.hint
    wire.update(detail)
    return wire


def exit_code_of(error: Mapping[str, Any]) -> int:
    """The process exit code that belongs to a wire error; 1 for a code of a newer version."""
    kind = CATALOGUE.get(str(error.get("code")))
    return kind.exit_code if kind else FAILED
