"""What a refusal leaves beside its audit entry: log lines, counts, and an alarm when somebody is refused in bursts."""

import sys
from collections import OrderedDict, deque
from typing import Any, Final, TextIO

from contracts.policy import SecurityRaised, ToolDecided
from services.runtime.clock import Clock
from services.runtime.lifecycle import Log

BURST_COUNT: Final = 10
BURST_MS: Final = 60_000
WATCHED_MAX: Final = 10_000
SHOWN_CHARS_MAX: Final = 500
_WORDS: Final = {
    "http_exfiltration": "HTTP exfiltration",
    "dangerous_git": "dangerous git operation",
    "unauthorized_file_write": "unauthorized file write",
    "unauthorized_file_read": "unauthorized file read",
    "shell_injection": "shell injection",
    "network_backdoor": "network backdoor",
    "container_escape": "container escape",
    "lua_escape": "Lua escape",
    "role_escalation": "role escalation",
    "resource_abuse": "resource abuse",
    "tool_misuse": "tool misuse",
}


class Bursts:
    """Notices when one principal, or one task, is refused BURST_COUNT times within BURST_MS; says so once per burst."""

    def __init__(self) -> None:
        self._times: OrderedDict[tuple[str, ...], deque[int]] = OrderedDict()
        self._told: dict[tuple[str, ...], int] = {}

    def count(self, key: tuple[str, ...], now_ms: int) -> bool:
        """Take in one refusal; True when it completes a burst that nobody was told of."""
        times = self._times.setdefault(key, deque(maxlen=BURST_COUNT))
        self._times.move_to_end(key)
        times.append(now_ms)
        if len(self._times) > WATCHED_MAX:
            forgotten, _ = self._times.popitem(last=False)
            self._told.pop(forgotten, None)
        if len(times) < BURST_COUNT or now_ms - times[0] > BURST_MS:
            return False
        # The burst goes on as long as refusals do not stop for a whole window.
        last_ms = self._told.get(key)
        self._told[key] = now_ms
        return last_ms is None or now_ms - last_ms > BURST_MS


class Denials:
    """Tells of refusals."""

    def __init__(self, *, clock: Clock, log: Log, gateway: str, stream: TextIO | None = None) -> None:
        self._clock, self._log, self._gateway = clock, log, gateway
        self._stream = stream
        self._bursts = Bursts()

    def tell(self, entry: ToolDecided, *, code: str, rule: str, attack: str, detail: dict[str, Any]) -> None:
        """Log one refusal: two lines for people, one for programs."""
        self._line(f"[warning] Toolkit execution failed tool={entry.tool} policy={entry.role} reason={code}")
        target = _target(entry.args, detail)
        what = f"Blocked {_WORDS.get(attack, attack)} attempt from agent={entry.by}"
        self._line(f"[security] {what}{f' {target}' if target else ''}")
        self._log.warning(
            f"policy.denied.{code}", agent=entry.by, role=entry.role, tool=entry.tool, run_id=entry.run_id,
            task_id=entry.task_id, call=entry.id, args_sha256=entry.args_sha256, rule=rule, verdict="deny",
            attack=attack,
        )  # fmt: skip

    def raised(self, entry: ToolDecided, code: str) -> list[SecurityRaised]:
        """The security events that one refusal leads to, not chained yet."""
        now_ms = self._clock.now_ms()
        found = []
        if code == "role_mismatch":
            found.append(self._event("role_mismatch", entry, now_ms, 1, entry.detail))
        who = (entry.role, entry.run_id, entry.task_id) if entry.run_id else (entry.role, entry.by)
        if self._bursts.count(who, now_ms):
            found.append(self._event("denial_burst", entry, now_ms, BURST_COUNT, {"last_code": code}))
        for event in found:
            self._line(f"[security] {event.kind} role={event.role} agent={event.by} count={event.count}")
        return found

    def _event(self, kind: Any, entry: ToolDecided, now_ms: int, count: int, detail: dict[str, Any]) -> SecurityRaised:
        return SecurityRaised(
            n=0, prev="", hash="", at_ms=now_ms, kind=kind, role=entry.role, by=entry.by, gateway=self._gateway,
            count=count, id=entry.id, detail=detail, run_id=entry.run_id, task_id=entry.task_id,
        )  # fmt: skip

    def _line(self, text: str) -> None:
        stream = self._stream if self._stream is not None else sys.stderr
        # One line is one line, whatever a caller wrote into a name or a URL.
        shown = "".join(character if character.isprintable() else "?" for character in text)
        try:
            stream.write(shown + "\n")
            stream.flush()
        except (OSError, ValueError):
            return  # nobody reads it any more; the audit has it


def _target(args: Any, detail: dict[str, Any]) -> str:
    """What the attempt was aimed at: a URL, a command, a path."""
    for source in (args, detail):
        if not isinstance(source, dict):
            continue
        for key in ("url", "write", "read", "path", "image"):
            if isinstance(source.get(key), str):
                name = "path" if key in ("write", "read") else key
                return f"{name}={source[key][:SHOWN_CHARS_MAX]}"
        if isinstance(source.get("cmd"), list):
            return f"cmd={' '.join(map(str, source['cmd']))[:SHOWN_CHARS_MAX]}"
    return ""
