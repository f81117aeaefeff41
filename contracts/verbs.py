"""Every request verb as data: subject, request and reply type, meaning, example. subjects.md is made from this."""

from typing import Any, Final

import msgspec

from contracts import approval, drill, epic, identity, ledger, llm, policy, requests, run, run_proofs, strategy
from contracts.subjects import rpc


class VerbSpec(msgspec.Struct, frozen=True):
    """One request verb. `reply` is the type of the envelope's `value`."""

    service: str
    noun: str
    verb: str
    request: Any
    reply: Any
    meaning: str
    example: str

    @property
    def subject(self) -> str:
        """The subject people and services send the request to."""
        return rpc(self.service, self.noun, self.verb)


_TASKS = '[{"id":"a","description":"Draft"},{"id":"b","description":"Check","role":"tester","depends_on":["a"]}]'

VERBS: Final[tuple[VerbSpec, ...]] = (
    VerbSpec("planner", "goal", "submit", requests.GoalSubmit, epic.Plan, "decompose a goal and run it",
             '{"goal":"Build user authentication with JWT","run_id":"auth-build-1"}'),
    VerbSpec("planner", "goal", "plan", requests.GoalSubmit, epic.Plan, "decompose a goal without running it",
             '{"goal":"Build user authentication with JWT"}'),
    VerbSpec("planner", "epic", "create", requests.EpicCreate, epic.EpicView, "create an epic",
             '{"title":"Auth","epic_id":"auth"}'),
    VerbSpec("planner", "epic", "update", requests.EpicUpdate, epic.EpicView, "change an epic: its budgets, its texts",
             '{"epic_id":"auth","budget_usd_micros":200000}'),
    VerbSpec("planner", "epic", "get", requests.EpicRef, epic.EpicView, "one epic with its progress",
             '{"epic_id":"auth"}'),
    VerbSpec("planner", "epic", "list", requests.Page, list[epic.EpicView], "epics, newest first", '{"limit":20}'),
    VerbSpec("planner", "task", "enqueue", requests.TaskEnqueue, str | list[str], "run tasks in their epic",
             '{"tasks":' + _TASKS + "}"),
    VerbSpec("planner", "task", "status", requests.TaskRef, str, "state of one task", '{"task_id":"a"}'),
    VerbSpec("planner", "task", "result", requests.TaskRef, Any, "result of a completed task", '{"task_id":"a"}'),
    VerbSpec("planner", "task", "graph", requests.GraphRef, dict[str, str], "state of every task, by id", "{}"),
    VerbSpec("planner", "strategy", "put", requests.StrategyPutRequest, strategy.StrategyView,
             "store and activate a new version", '{"name":"quick","pattern":"hotfix","priority":10,'
             '"scripts":{"decomposition":"return {subtasks={}, strategy=\\"atomic\\", reasoning=\\"hotfix\\"}"}}'),
    VerbSpec("planner", "strategy", "get", requests.StrategyRef, strategy.StrategyPut, "one version with its scripts",
             '{"name":"standard"}'),
    VerbSpec("planner", "strategy", "list", requests.Nothing, list[strategy.StrategyView], "all strategies", "{}"),
    VerbSpec("planner", "strategy", "activate", requests.StrategyRef, strategy.StrategyView,
             "make a stored version the active one", '{"name":"standard","version":1}'),
    VerbSpec("planner", "strategy", "rollback", requests.StrategyRef, strategy.StrategyView,
             "go back to the version that was active before", '{"name":"standard"}'),
    VerbSpec("planner", "strategy", "try", requests.StrategyTry, strategy.StrategyTrial, "run one stage without effect",
             '{"name":"standard","stage":"decompose","task":{"description":"X","estimated_complexity":10}}'),
    VerbSpec("planner", "strategy", "choose", requests.StrategyChoose, strategy.StrategyChoice,
             "which active strategy a plan gets", '{"texts":["hotfix: the login page is blank"]}'),
    VerbSpec("planner", "strategy", "seed", requests.Nothing, list[strategy.StrategyView],
             "store the shipped strategies that are missing", "{}"),
    VerbSpec("executor", "run", "start", requests.RunStart, run.RunSummary, "start a run of given tasks",
             '{"run_id":"r1","tasks":' + _TASKS + "}"),
    VerbSpec("executor", "run", "get", requests.RunRef, run.RunView, "one run as it stands now", '{"run_id":"r1"}'),
    VerbSpec("executor", "run", "list", requests.Page, list[run.RunSummary], "runs, newest first", '{"limit":20}'),
    VerbSpec("executor", "run", "cancel", requests.RunCancel, run.RunSummary, "stop a run or one task of it",
             '{"run_id":"r1","reason":"not needed"}'),
    VerbSpec("executor", "run", "resume", requests.RunRef, run.RunSummary, "try again what failed or was blocked",
             '{"run_id":"r1"}'),
    VerbSpec("executor", "run", "result", requests.RunRef, run_proofs.RunResult, "what a run produced",
             '{"run_id":"r1"}'),
    VerbSpec("executor", "run", "graph", requests.RunRef, dict[str, str], "state of every task, by id",
             '{"run_id":"r1"}'),
    VerbSpec("executor", "run", "replay", requests.RunRef, run_proofs.ReplayReport,
             "fold the stored log again and compare; calls nobody", '{"run_id":"r1"}'),
    VerbSpec("executor", "run", "audit", requests.RunRef, run_proofs.RunAudit, "paid calls, doubles, open waits",
             '{"run_id":"r1"}'),
    VerbSpec("executor", "run", "waits", requests.RunWaits, list[run.Wait], "everything that waits, with deadlines",
             "{}"),
    VerbSpec("llm-worker", "llm", "models", requests.Nothing, list[llm.ModelView], "models, aliases, availability",
             "{}"),
    VerbSpec("llm-worker", "llm", "workers", requests.Nothing, list[llm.WorkerView], "workers by their heartbeats",
             "{}"),
    VerbSpec("llm-worker", "llm", "limits", requests.Nothing, ledger.LimitsView,
             "limits of all workers together, and what is used of them", "{}"),
    VerbSpec("llm-worker", "llm", "ledger", ledger.LedgerQuery, ledger.LedgerView,
             "calls with what they were held for and what they cost", '{"run_id":"run-123","limit":20}'),
    VerbSpec("llm-worker", "llm", "estimate", llm.LlmRequest, ledger.Estimate,
             "tokens and cost of a request before it is made; nothing is reserved",
             '{"model_id":"mock","input":{"messages":[{"role":"user","content":"Hello"}]}}'),
    VerbSpec("llm-worker", "llm", "replay", requests.ReplayRef, llm.LlmAnswer, "a paid answer, from the journal",
             '{"corr_id":"c1","run_id":"run-123","node_id":"task-1"}'),
    VerbSpec("llm-worker", "llm", "repeat", requests.RepeatRef, llm.LlmAsked,
             "make a paid call once more, under an id of its own; told at once where its answer will be heard",
             '{"corr_id":"c1","mark":"second-look"}'),
    VerbSpec("llm-worker", "llm", "cancel", requests.CorrRef, bool,
             "stop a call wherever it runs or waits, also one whose worker has died; true when there was one",
             '{"corr_id":"c1"}'),
    VerbSpec("llm-worker", "llm", "reset", requests.ModelRef, llm.ModelView,
             "close the breaker of a model that somebody has mended: calls flow again at once", '{"model_id":"mock"}'),
    VerbSpec("llm-worker", "llm", "tail", requests.TokensRef, list[llm.LlmToken], "tokens of a node, while kept",
             '{"run_id":"run-123","node_id":"task-1","from_seq":2}'),
    VerbSpec("policy-gateway", "policy", "decide", policy.PolicyDecide, policy.Decision,
             "judge a call without any effect", '{"role":"coder","tool":"http","args":{"url":"https://evil.com/"}}'),
    VerbSpec("policy-gateway", "policy", "roles", requests.Nothing, policy.PolicyView,
             "the policy in force: who may what", "{}"),
    VerbSpec("policy-gateway", "policy", "put", policy.PolicyPut, policy.PolicyView,
             "put another policy in force", '{"text":"[roles.coder]\\ntools = [\\"fs\\"]\\n"}'),
    VerbSpec("policy-gateway", "policy", "diff", policy.PolicyDiff, policy.PolicyDifference,
             "past verdicts that another policy would change", '{"text":"[roles.coder]\\ntools = []\\n","since":"7d"}'),
    VerbSpec("policy-gateway", "policy", "stats", policy.AuditStats, policy.PolicyStatistics,
             "calls and refusals, counted", '{"since":"7d"}'),
    VerbSpec("policy-gateway", "policy", "audit", policy.AuditQuery, list[policy.AuditRow],
             "decisions with their ends, newest last", '{"role":"coder","verdict":"deny","limit":20}'),
    VerbSpec("policy-gateway", "policy", "verify", policy.AuditVerify, policy.AuditVerified,
             "walk the audit chain and its signatures", "{}"),
    VerbSpec("policy-gateway", "policy", "drill", drill.DrillRequest, drill.DrillReport,
             "run the five attacks and their variants in a throw-away workspace", '{"attacks":[2]}'),
    VerbSpec("policy-gateway", "call", "withdraw", policy.CallOf, policy.CallStanding,
             "end a call of a task that is over, whichever gateway has it",
             '{"run_id":"r1","task_id":"a","attempt":1,"call":1}'),
    VerbSpec("identity", "user", "create", identity.UserCreate, identity.UserView,
             "create a human account; its one-time set-up link is written on the host", '{"name":"Aka"}'),
    VerbSpec("identity", "user", "status", identity.UserRef, identity.UserView, "one account: proof on, locked until",
             '{"name":"aka"}'),
    VerbSpec("identity", "user", "list", requests.Nothing, list[identity.UserView], "all accounts", "{}"),
    VerbSpec("identity", "agent", "create", identity.AgentCreate, identity.AgentCreated,
             "create an agent; its credential is shown this once", '{"name":"planner-1"}'),
    VerbSpec("identity", "agent", "code", identity.AgentCode, identity.AgentCodeShown,
             "an agent reads its own code, for challenges of other agents", '{"credential":"planner-1.…"}'),
    VerbSpec("identity", "agent", "challenge", identity.AgentChallenge, identity.AgentVerified,
             "an agent lets another prove who it is",
             '{"agent":"planner-1","code":"123456","credential":"worker-2.…"}'),
    VerbSpec("identity", "login", "converse", identity.Converse, identity.Said,
             "prove who you are: say a name, then a code", '{"session":"s1","text":"Aka"}'),
    VerbSpec("identity", "approval", "list", approval.ApprovalList, list[approval.ApprovalView],
             "gates that wait for a human", "{}"),
    VerbSpec("identity", "approval", "show", approval.ApprovalRef, approval.ApprovalView,
             "one gate: exactly what would be done, and what became of it", '{"approval_id":"apr-7"}'),
    VerbSpec("identity", "approval", "key", requests.Nothing, approval.ApprovalKey,
             "the public key of the signatures on what humans release", "{}"),
    VerbSpec("identity", "approval", "converse", approval.ApprovalConverse, identity.Said,
             "release gates by a human's fresh code, in the same conversation",
             '{"session":"s1","text":"Aka","approval_id":"apr-7"}'),
    VerbSpec("identity", "approval", "deny", approval.ApprovalDeny, identity.Said,
             "deny gates by a human's fresh code, in the same conversation",
             '{"session":"s1","text":"Aka","approval_id":"apr-7","reason":"not today"}'),
)

BY_SUBJECT: Final[dict[str, VerbSpec]] = {verb.subject: verb for verb in VERBS}


def verbs_of(service: str) -> list[VerbSpec]:
    """The verbs one service answers."""
    return [verb for verb in VERBS if verb.service == service]
