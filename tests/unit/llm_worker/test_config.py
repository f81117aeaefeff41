"""A bound that would make llm-worker hang, or wait for nothing, is refused when it is read."""

import pytest

from contracts.errors import Rejected
from services.llm_worker.config import SECTION
from services.llm_worker.config import Config as Section
from services.runtime.config import Config

TOO_SMALL = {
    "IN_FLIGHT_MAX": "0",
    "WAITING_MAX": "0",
    "WAITING_PER_MODEL_MAX": "0",
    "QUEUE_TIMEOUT_S": "0",
    "REQUEST_BYTES_MAX": "-1",
    "HEARTBEAT_S": "0",
    "EMBEDDED_CONTEXT_TOKENS": "0",
    "EMBEDDED_SLOTS": "0",
    "EMBEDDED_THREADS": "0",
    "EMBEDDED_OUTPUT_TOKENS_MAX": "0",
    "MODELS": '{"m":{"provider":"mock","slots":0}}',
}


TOO_LARGE = {"MODELS": '{"m":{"provider":"mock","price_in_usd_per_mtok":1e300,"price_out_usd_per_mtok":1}}'}
"""No sum could hold what such a call costs."""


@pytest.mark.parametrize("key", TOO_LARGE)
def test_what_is_too_large_is_refused(tmp_path, key):
    env = {"HTDAG_HOME": str(tmp_path), f"HTDAG_LLM_WORKER__{key}": TOO_LARGE[key]}
    with pytest.raises(Rejected) as refused:
        Config.load(env=env, cwd=tmp_path).section(SECTION, Section)
    assert refused.value.code == "bad_config"


@pytest.mark.parametrize("key", TOO_SMALL)
def test_what_is_too_small_is_refused(tmp_path, key):
    env = {"HTDAG_HOME": str(tmp_path), f"HTDAG_LLM_WORKER__{key}": TOO_SMALL[key]}
    with pytest.raises(Rejected) as refused:
        Config.load(env=env, cwd=tmp_path).section(SECTION, Section)
    assert refused.value.code == "bad_config"
    assert f"llm_worker.{key.lower()}" in refused.value.message


def test_the_smallest_and_the_defaults_are_taken(tmp_path):
    env = {"HTDAG_HOME": str(tmp_path), "HTDAG_LLM_WORKER__IN_FLIGHT_MAX": "1", "HTDAG_LLM_WORKER__HEARTBEAT_S": "1"}
    config = Config.load(env=env, cwd=tmp_path).section(SECTION, Section)
    assert (config.in_flight_max, config.heartbeat_s, config.waiting_max) == (1, 1.0, 256)
