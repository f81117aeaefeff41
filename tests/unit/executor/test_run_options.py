"""Options of a run hold where its tasks say nothing themselves."""

from contracts.run import LlmRequested
from contracts.task import AgentNode, LlmNode, TaskSpec
from tests.unit.executor.builders import agent, llm, run, start


def test_what_a_task_says_itself_wins_over_the_options_of_its_run():
    own = {"max_tokens": 5, "temperature": 0.1, "timeout_ms": 1_000}
    tasks = (
        llm("named"),
        TaskSpec(id="own", node=LlmNode(model="mock", prompt="x", params=own)),
        agent("agent-own", node=AgentNode(model="mine")),
        agent("agent"),
    )
    spec = run()
    spec.when(start(*tasks, model="theirs", max_tokens=9, temperature=0.9, llm_timeout_ms=2_000))
    requests = {one.request.node_id: one.request for one in spec.history if isinstance(one, LlmRequested)}
    models = {name: request.model_id for name, request in requests.items()}
    assert models == {"named": "mock", "own": "mock", "agent-own": "mine", "agent": "theirs"}
    params = {name: (one.params.max_tokens, one.params.temperature, one.params.timeout_ms)
              for name, one in requests.items()}  # fmt: skip
    theirs = (9, 0.9, 2_000)
    assert params == {"named": theirs, "own": (5, 0.1, 1_000), "agent-own": theirs, "agent": theirs}
