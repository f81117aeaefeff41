"""What a foreign worker may say at the broker: answers to llm-worker, and nothing else."""

import pytest

from contracts.permissions import BY_NAME
from contracts.rights import FOREIGN, may_publish, may_subscribe

WORKER = BY_NAME[FOREIGN]


def test_it_answers_calls_and_hears_which_are_not_wanted():
    assert may_subscribe(WORKER, "htdag.v1.llm.serve.claude-sonnet-4.5")
    assert may_subscribe(WORKER, "htdag.v1.llm.stop.echo")
    assert may_publish(WORKER, "htdag.v1.llm.served.llm-worker-1.c1-tokens")


@pytest.mark.parametrize(
    "subject",
    [
        "htdag.v1.llm.resp.r.t",
        "htdag.v1.llm.req.mock",
        "llm.req.mock",
        "htdag.v1.evt.llm-worker.breaker.m",
        "_INBOX_llm-worker.x",
        "_INBOX.x",
        "htdag.v1.llm.serve.echo",
        "$JS.API.INFO",
    ],
)
def test_it_says_nothing_else(subject):
    assert not may_publish(WORKER, subject)


@pytest.mark.parametrize("subject", ["htdag.v1.llm.served.w.c", "_INBOX_llm-worker.x", "llm.resp.r.t", "htdag.v1.>"])
def test_it_hears_nothing_else(subject):
    assert not may_subscribe(WORKER, subject)


def test_the_worker_alone_asks():
    assert may_publish(BY_NAME["llm-worker"], "htdag.v1.llm.serve.claude-sonnet-4.5")
    assert may_publish(BY_NAME["llm-worker"], "htdag.v1.llm.stop.a.b")
    assert may_subscribe(BY_NAME["llm-worker"], "htdag.v1.llm.served.w.c")
    assert not may_publish(BY_NAME["executor"], "htdag.v1.llm.serve.echo")
