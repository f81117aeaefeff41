"""`htdag policy`: what roles may do, what they did, and the proof of it."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from contracts.drill import DrillReport
from contracts.errors import DENIED, FAILED, OK, Rejected
from contracts.policy import ToolCall
from services.console import input_file, principal
from services.console.connection import connected
from services.console.drill_text import drill_text, save
from services.console.options import DEFAULTS, Common
from services.console.output import columns, plain, size
from services.console.policy_text import audit_table, decision_text, difference_text, roles_text, statistics_text
from services.console.workspace import workspace_of

app = App(
    name="policy",
    help="Roles and tools: judge and make calls, look at the audit, change the policy.",
    help_format="plaintext",
)
CALL_GRACE_S = 10.0
CALL_WAIT_S = 600.0
VERIFY_S = 120.0
DRILL_S = 118.0


@app.command
async def decide(
    role: str, tool: str, args: str, /, *, opts: str = "{}", workspace: str | None = None, common: Common = DEFAULTS
) -> int:
    """Judge a call without making it. Exit code 4 when it would be refused.

    For example:
        htdag policy decide coder git '{"cmd":["push","--force","origin","main"]}'

    Parameters
    ----------
    role
        coder, tester, critic, researcher, architect or admin.
    tool
        fs, shell, git, http, docker or lua.
    args
        The tool's arguments as JSON; - reads them from standard input.
    opts
        The call's options as JSON: timeout, cpu, mem, net.
    workspace
        The workspace whose profile counts, by its directory or its name; else the default one.
    """
    body = {"role": role, "tool": tool, "args": _json(args, "args"), "opts": _json(opts, "opts"),
            "workspace": _workspace(workspace, common)}  # fmt: skip
    async with connected(common) as console:
        found = plain(await console.call("policy-gateway.policy.decide", body))
    common.output.value(found, lambda _: decision_text(found, common.output))
    return OK if found["verdict"] == "allow" else DENIED


@app.command
async def run(
    role: str,
    tool: str,
    args: str,
    /,
    *,
    timeout_ms: Annotated[int | None, Parameter(name="--timeout")] = None,
    opts: str = "{}",
    workspace: str | None = None,
    common: Common = DEFAULTS,
) -> None:
    """Really make a call, as this role, and print what it returns.

    For example:
        htdag policy run coder git '{"cmd":["status"]}' --workspace shop

    Parameters
    ----------
    role
        coder, tester, critic, researcher, architect or admin.
    tool
        fs, shell, git, http, docker or lua.
    args
        The tool's arguments as JSON; - reads them from standard input.
    timeout_ms
        Milliseconds it may take in all; else the role's maximum.
    opts
        More of the call's options as JSON: cpu, mem, net.
    workspace
        Where it works: a directory, which becomes a workspace, or a name; else the workspace `default`.
    """
    from contracts.subjects import check_id, tool_call

    options = _json(opts, "opts")
    if timeout_ms is not None and isinstance(options, dict):
        options = {**options, "timeout": timeout_ms}
    call = ToolCall(args=_json(args, "args"), opts=options, workspace=_workspace(workspace, common))
    wait_s = max(common.wait, CALL_WAIT_S if timeout_ms is None else timeout_ms / 1000 + CALL_GRACE_S)
    async with connected(common) as console:
        subject = tool_call(check_id(role, "role"), check_id(tool, "tool"))
        try:
            value = await console.bus.call(subject, call, timeout_s=wait_s, headers=principal.headers())
        except Rejected as error:
            if error.code != "service_unavailable":
                raise
            raise Rejected("service_unavailable", "policy-gateway does not answer", service="policy-gateway") from None
    common.output.value(value, _text_of(value))


@app.command
async def roles(*, common: Common = DEFAULTS) -> None:
    """Show the policy in force: version, digest, and who may what.

    For example:
        htdag policy roles
    """
    async with connected(common) as console:
        found = plain(await console.call("policy-gateway.policy.roles", {}))
    common.output.value(found, lambda _: roles_text(found))


@app.command
async def put(path: Path, /, *, common: Common = DEFAULTS) -> None:
    """Put a policy in force, in every gateway and without a restart. What is
    wrong is refused with its field and line, and changes nothing.

    For example:
        htdag policy put roles.toml

    Parameters
    ----------
    path
        The file; - reads standard input.
    """
    async with connected(common) as console:
        found = plain(await console.call("policy-gateway.policy.put", {"text": _text(path)}))
    common.output.value(found, f"version {found['version']} is in force, digest {found['digest'][:16]}")


@app.command
async def diff(*, with_: Path, since: str = "7d", limit: int = 1000, common: Common = DEFAULTS) -> None:
    """List past verdicts that another policy would change.

    For example:
        htdag policy diff --with new.toml --since 7d

    Parameters
    ----------
    with_
        The file with the other policy.
    since
        How far back: 7d, 12h, or a time such as 2026-11-20T17:00:00Z.
    limit
        At most so many.
    """
    body = {"text": _text(with_), "since": since, "limit": limit}
    async with connected(common) as console:
        found = plain(await console.call("policy-gateway.policy.diff", body, timeout_s=max(common.wait, VERIFY_S)))
    common.output.value(found, lambda _: difference_text(found))


@app.command
async def stats(*, since: str | None = None, common: Common = DEFAULTS) -> None:
    """Count calls, refusals, and the attacks that they would have been.

    For example:
        htdag policy stats --since 7d

    Parameters
    ----------
    since
        How far back: 7d, 12h, or a time such as 2026-11-20T17:00:00Z; else from the beginning.
    """
    async with connected(common) as console:
        found = plain(
            await console.call("policy-gateway.policy.stats", {"since": since}, timeout_s=max(common.wait, VERIFY_S))
        )
    common.output.value(found, lambda _: statistics_text(found))


@app.command
async def audit(
    *,
    since: str | None = None,
    role: str | None = None,
    tool: str | None = None,
    run: str | None = None,
    task: str | None = None,
    code: str | None = None,
    verdict: str | None = None,
    limit: int = 100,
    common: Common = DEFAULTS,
) -> None:
    """List decisions with their ends, newest last; every filter narrows it.

    For example:
        htdag policy audit --verdict deny --since 24h
        htdag policy audit --run r1 --task draft --json

    Parameters
    ----------
    since
        How far back: 7d, 12h, or a time such as 2026-11-20T17:00:00Z.
    role
        Only of this role.
    tool
        Only of this tool.
    run
        Only of this run.
    task
        Only of this task.
    code
        Only with this code.
    verdict
        allow or deny.
    limit
        At most so many, the newest.
    """
    filters = {"since": since, "role": role, "tool": tool, "run": run, "task": task, "code": code,
               "verdict": verdict, "limit": limit}  # fmt: skip
    async with connected(common) as console:
        found = plain(
            await console.call(
                "policy-gateway.policy.audit",
                {name: value for name, value in filters.items() if value is not None},
                timeout_s=max(common.wait, VERIFY_S),
            )
        )
    common.output.value(found, lambda _: audit_table(found))


@app.command
async def verify(*, key: str | None = None, common: Common = DEFAULTS) -> None:
    """Walk the whole audit chain and its signatures; say where it is broken.

    For example:
        htdag policy verify

    Parameters
    ----------
    key
        The public key that must have signed it, in hex; else the keys that the gateway trusts.
    """
    body = {} if key is None else {"key": key}
    async with connected(common) as console:
        found = plain(await console.call("policy-gateway.policy.verify", body, timeout_s=max(common.wait, VERIFY_S)))
    rows = [(found["entries"], found["checkpoints"], found["signed_up_to"], found["head"][:16])]
    common.output.value(
        found, lambda _: "the chain holds\n" + columns(("ENTRIES", "SIGNATURES", "SIGNED UP TO", "HEAD"), rows)
    )
    if found["forged"]:
        where = ", ".join(map(str, found["forged_at"]))
        text = f"{found['forged']} forged messages are in {found['stream']}, no part of the chain; at {where}"
        common.output.note(f"{text}; `htdag doctor` says more")


@app.command
async def drill(
    attacks: list[int] | None = None,
    /,
    *,
    report: Path | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Attack this instance for real: five attacks and their variants, in a workspace made for it and thrown away.
    Exit code 1 when anything got through.

    For example:
        htdag policy drill
        htdag policy drill 2 4 --report drill.json

    Parameters
    ----------
    attacks
        1 secret exfiltration, 2 git history, 3 tester tampering, 4 resource exhaustion, 5 backdoor; else all.
    report
        A file that gets the whole report as JSON.
    """
    common.output.note("attacking; this takes about half a minute")
    async with connected(common) as console:
        found: DrillReport = await console.call(
            "policy-gateway.policy.drill", {"attacks": attacks or []}, timeout_s=max(common.wait, DRILL_S)
        )
    if report is not None:
        save(found, report)
    common.output.value(found, lambda _: drill_text(found))
    return OK if found.ok else FAILED


@app.command
async def image(
    name: str,
    /,
    *,
    folder: Path | None = None,
    busybox: Annotated[bool, Parameter(negative="")] = False,
    python: Annotated[bool, Parameter(negative="")] = False,
    package: list[str] | None = None,
    common: Common = DEFAULTS,
) -> None:
    """Build a small image for the docker tool and load it into the engine,
    without a registry: from a folder, the machine's busybox, or its Python.

    For example:
        htdag policy image htdag/busybox:1 --busybox
        htdag policy image htdag/python:3 --python --package pytest

    Parameters
    ----------
    name
        Name of the image, name:tag; a role's list of images must name it.
    folder
        A root file system that becomes the image.
    busybox
        Take the static busybox of this machine.
    python
        Take the Python of this machine.
    package
        An installed Python package that goes into the image; repeat it for more.
    """
    import importlib

    # Only this command needs it, and it runs here: the engine may be one that no gateway uses.
    built = importlib.import_module("services.policy_gateway.tools.image")
    found = await built.build(name, folder=folder, busybox=busybox, python=python, packages=package or [])
    common.output.value(found, f"{found['image']}  {size(found['bytes'])}  {found['id']}")


def _json(text: str, field: str) -> Any:
    data = input_file.read(text) if text == input_file.STDIN else text.encode()
    return input_file.parse(data, field)


def _workspace(word: str | None, common: Common) -> str | None:
    return None if word is None else workspace_of(word, common.place)


def _text(path: Path) -> str:
    return input_file.read_text(str(path))


def _text_of(value: Any) -> str | None:
    """What people want to see of a result: what a program said, the content of a file; else None for its JSON."""
    if isinstance(value, dict) and isinstance(value.get("stdout"), str):
        said = value["stdout"] + value.get("stderr", "")
        return said.rstrip("\n") if not value.get("exit") else f"{said.rstrip()}\nexit {value['exit']}".lstrip()
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        return str(value["content"]).rstrip("\n")
    return json.dumps(value, ensure_ascii=False, indent=2)
