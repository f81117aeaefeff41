"""The program of one judge: a question per line in, a verdict per line out, JSON both ways.

Question: `{"schema": …}`, or with `"output"`, the text of an answer. Verdict: `{"senseless": …, "wrong": …}`, texts or
null. The first line out is `{}`. A schema of a few bytes can ask for years of work, and the library cannot be
interrupted, so the kernel ends whoever takes too long or too much; nothing here reaches a file or a network.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any, Final

ADDRESS_SPACE_BYTES_MAX: Final = 1 << 30
PATTERN_TRIES_MAX: Final = 10_000
"""So often a pattern may go back and try another way."""
SAID_CHARS_MAX: Final = 2_000
PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Serve until the pipe closes. Arguments: the folder of the library, seconds of a processor, niceness."""
    folder, cpu_s, nice = sys.argv[1:]
    sys.path.append(folder)
    import jsonschema_rs

    os.nice(int(nice))
    _confine()
    _say({})
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, float(cpu_s))  # nobody handles SIGPROF: it is the end
        _say(_verdict(jsonschema_rs, json.loads(line)))
        signal.setitimer(signal.ITIMER_PROF, 0)


def _confine() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for limit, value in (
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES_MAX),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _verdict(library: Any, question: dict[str, Any]) -> dict[str, Any]:
    try:
        options = library.FancyRegexOptions(backtrack_limit=PATTERN_TRIES_MAX)
        validator = library.validator_for(question["schema"], retriever=_fetch_nothing, pattern_options=options)
    except Exception as error:  # whatever the library has against it
        return {"senseless": _first_line(error)}
    if "output" not in question:
        return {}
    try:
        value = json.loads(question["output"], parse_constant=_no_number)
    except (ValueError, RecursionError):
        return {"wrong": "it is no JSON"}
    try:
        first = next(validator.iter_errors(value), None)
    except Exception as error:  # nested too deep for it, say
        return {"wrong": _first_line(error)}
    if first is None:
        return {}
    place = "/" + "/".join(map(str, first.instance_path))
    return {"wrong": f"at {place}: {first.message}"[:SAID_CHARS_MAX]}


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:SAID_CHARS_MAX] or type(error).__name__


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"{uri} is not part of the schema")


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _say(verdict: dict[str, Any]) -> None:
    os.write(1, json.dumps(verdict).encode() + b"\n")


if __name__ == "__main__":
    main()
