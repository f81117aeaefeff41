"""Whose secret is whose, and that a service which was given too much begins anew without it."""

import importlib
import os
import shlex
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from services.console.serve import SERVICES
from services.console.supervision.background import configuration
from services.runtime.config import SECTIONS
from services.runtime.environment import PROVIDER_KEYS, SECTION_OF, foreign, own

PROVIDERS = ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY_FILE"]
OTHERS = [
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "HF_TOKEN",
    "MY_PASSWORD",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "API_KEY",
]
SETTINGS = ["HTDAG_LLM_WORKER__OPENAI_API_KEY", "HTDAG_POLICY__AUDIT_KEY"]
PLAIN = [
    "PATH", "HOME", "LANG", "NATS_URL", "NATS_PASSWORD", "NATS_NKEY", "HTDAG_HOME", "HTDAG_CORE__HTTP_PORT",
    "HTDAG_CORE__NATS_PASSWORD", "HTDAG_EXECUTOR__AUTO_ADMIN", "HTDAG_LLM_WORKER__ALIASES",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "SSH_AUTH_SOCK", "DOCKER_HOST", "OPENAI_BASE_URL", "KEYBOARD", "TOKENIZERS_PARALLELISM", "MONKEY",
]  # fmt: skip
ALL = dict.fromkeys([*PROVIDERS, *OTHERS, *SETTINGS, *PLAIN], "x")


@pytest.mark.parametrize("service", [*SERVICES, "nats"])
def test_secrets_go_to_whom_they_are_for(service: str) -> None:
    kept = {
        "llm-worker": {*PROVIDERS, *OTHERS, "HTDAG_LLM_WORKER__OPENAI_API_KEY"},
        "policy-gateway": {"HTDAG_POLICY__AUDIT_KEY"},
    }
    assert set(own(service, ALL)) == {*PLAIN, *kept.get(service, set())}
    assert set(foreign(service, ALL)) == set(ALL) - set(own(service, ALL))


def test_every_service_is_known_by_its_section() -> None:
    assert set(SECTION_OF) == set(SERVICES)
    assert set(SECTIONS) == {"core", *SECTION_OF.values()}
    for name, package in SERVICES.items():
        config = importlib.import_module(f"{package}.config")
        assert SECTION_OF[name] == getattr(config, "SECTION", package.rpartition(".")[2])


def test_supervisord_starts_the_broker_with_nothing_but_what_its_configuration_reads(tmp_path: Path) -> None:
    conf = RawConfigParser(inline_comment_prefixes=None)
    conf.read(configuration())
    server = tmp_path / "server"
    server.write_text('#!/bin/sh\ncat "/proc/$$/environ"\n')
    server.chmod(0o700)
    command = conf["program:nats"]["command"].replace("%(ENV_HTDAG_NATS_SERVER)s", str(server))
    its_own = {"HTDAG_STORE": "/a b", "HTDAG_OPERATOR_PASSWORD": "p w", "HTDAG_NKEY_PLANNER": "U1"}
    others = dict.fromkeys([*PROVIDERS, *OTHERS, *SETTINGS, *PROVIDER_KEYS, "GOOD_API_KEY", "NATS_PASSWORD"], "x")
    said = subprocess.run(
        shlex.split(command), env={"PATH": os.environ["PATH"], **others, **its_own}, capture_output=True, text=True,
        timeout=30, check=True,
    ).stdout  # fmt: skip
    assert dict(entry.split("=", 1) for entry in said.split("\0") if entry) == its_own


@pytest.mark.parametrize("service", ["executor", "llm-worker"])
def test_a_process_with_secrets_of_others_begins_anew_without_them(service: str) -> None:
    program = (
        "import os, pathlib, sys; from services.runtime.environment import begin_without_others as begin;"
        f"begin({service!r}); print(os.getpid(), sys.argv[1], b'sk-canary' in "
        "pathlib.Path('/proc/self/environ').read_bytes())"
    )
    env = {**os.environ, "OPENAI_API_KEY": "sk-canary"}
    with subprocess.Popen([sys.executable, "-c", program, "word"], env=env, stdout=subprocess.PIPE, text=True) as child:
        said, _ = child.communicate(timeout=30)
    assert said.split() == [str(child.pid), "word", str(service == "llm-worker")]
