"""A key that looks like no key: whatever a provider says of it, nobody outside hears it."""

import io
import json
import sys
import textwrap
from pathlib import Path

import pytest

from services.llm_worker.config import Config, ModelConfig
from services.llm_worker.models import ModelTable
from services.llm_worker.providers.failures import said
from services.llm_worker.providers.table import ProviderTable
from services.runtime import held_secrets, logs
from services.runtime.redaction import masked
from tests.support.eventually import eventually
from tests.unit.llm_worker.crew import LIFTED, Crew
from tests.unit.llm_worker.http_provider import answering
from tests.unit.llm_worker.support import call, error_of

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
KEY = "correct horse battery"
"""No shape would find it."""


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("status", [401, 400, 500])
async def test_a_server_that_repeats_the_key_tells_it_to_nobody(bus, kind, status):
    body = json.dumps({"error": {"message": f"who is {KEY}?", "type": "x"}})
    async with answering(status, body) as url:
        model = ModelConfig(provider=kind, model="m", base_url=url, api_key_env=f"{kind.upper()}_API_KEY")
        crew = Crew(bus, Config(limits=LIFTED, openai_api_key=KEY, anthropic_api_key=KEY, models={"m": model}))
        await crew.worker.start()
        await crew.ask("c", model="m", headers={"Htdag-Answer-To": "htdag.v1.cmd.executor.run.r.answer"})
        answer = await eventually(lambda: crew.answer("c"))
        await crew.providers.close()
    assert KEY not in json.dumps(answer)
    assert "who is ***" in json.dumps(answer)


async def test_a_program_that_prints_what_it_was_given_tells_it_to_nobody(tmp_path: Path):
    path = tmp_path / "program.py"
    text = """
        import os, sys
        sys.stdin.read()
        # The first one is cut in two where the beginning of a long complaint is left out.
        sys.exit(os.environ["MY_KEY"] + "y" * 3990 + os.environ["MY_OTHER"])
    """
    path.write_text(textwrap.dedent(text))
    model = ModelConfig(
        provider="cli", argv=(sys.executable, str(path)), api_key_env="MY_KEY", pass_env=("MY_OTHER",)
    )  # fmt: skip
    config, environ = Config(models={"m": model}), {"PATH": "", "MY_KEY": KEY, "MY_OTHER": "tr0ub4dor and three"}
    models = ModelTable(config, environ)
    wanted = call()._replace(resolved=models.resolve("m"))
    error = await error_of(ProviderTable(config, models, environ).of(wanted.resolved), wanted)
    for part in (KEY, KEY[-8:], "tr0ub4dor"):
        assert part not in json.dumps(error.detail)


def test_what_is_held_is_hidden_in_logs_errors_and_traces_in_any_notation():
    held_secrets.hold(['pass"word/of mine', "tiny"])
    told = io.StringIO()
    log = logs.configure("test", fmt="json", stream=told)
    try:
        raise ValueError('it was pass"word/of mine')
    except ValueError:
        log.exception("broke", about='pass"word/of mine', url="http://x/?a=pass%22word%2Fof%20mine", short="tiny")
    assert "of mine" not in told.getvalue()
    assert "of%20mine" not in told.getvalue()
    assert "tiny" in told.getvalue()
    for text in ('a pass"word/of mine b', '{"a":"pass\\"word/of mine"}', "pass%22word%2Fof+mine"):
        assert "mine" not in masked(text)
        assert "mine" not in said(text)


def test_a_key_at_the_cut_is_hidden_whole():
    held_secrets.hold([KEY])
    assert "correct" not in said("x" * 290 + KEY)
