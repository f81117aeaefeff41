"""The http tool: one request to a host that is open to the role. The fetcher dials what the plan says, nothing else."""

import re
from typing import Any, Final
from urllib.parse import urljoin

from services.policy_gateway.decision.facts import Facts
from services.policy_gateway.decision.plans import FetchPlan
from services.policy_gateway.decision.roles import Rights
from services.policy_gateway.decision.shape import bad_args, shown, unknown_key
from services.policy_gateway.decision.url import PORTS, URL_CHARS_MAX, Url, is_listed, read_url
from services.policy_gateway.decision.verdict import Deny

BODY_BYTES_MAX: Final = 5 << 20
HEADERS_MAX: Final = 64
HEADER_CHARS_MAX: Final = 4096
_KNOWN: Final = frozenset({"url", "method", "headers"})
_KNOWN_ANY: Final = _KNOWN | {"body"}
_METHODS: Final = ("GET", "HEAD")
_HEADERS: Final = frozenset({"accept", "accept-language", "user-agent", "if-none-match", "if-modified-since"})
_HEADERS_OURS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "keep-alive", "expect"}
)
"""What frames a request is written by the fetcher alone."""
_METHOD: Final = re.compile(r"[A-Z]{1,16}", re.ASCII)
_METHODS_CLOSED: Final = frozenset({"CONNECT", "TRACE"})
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"[\t -~]*", re.ASCII)
_LOCAL: Final = ("localhost", "local", "internal", "localdomain")


def http(rights: Rights, args: dict[str, Any], facts: Facts) -> FetchPlan | Deny:
    """Judge a request."""
    if rights.calls_max is not None and facts.calls_made >= rights.calls_max:
        detail = {"tool": "http", "max": rights.calls_max, "made": facts.calls_made}
        return Deny("call_limit_exceeded", "http.calls", detail)
    text = args.get("url")
    if type(text) is not str:
        return bad_args("url", "an absolute URL as text")
    hosts = None if rights.http_any else rights.hosts
    url = _open_url(text, hosts)
    if isinstance(url, Deny):
        return url
    method = _method(rights, args.get("method", "GET"))
    if isinstance(method, Deny):
        return method
    headers = _headers(rights, args.get("headers"))
    if isinstance(headers, Deny):
        return headers
    body = _body(args.get("body")) if rights.http_any else None
    if isinstance(body, Deny):
        return body
    return unknown_key(args, _KNOWN_ANY if rights.http_any else _KNOWN) or FetchPlan(
        method, url.scheme, url.host, url.port, url.target, headers, body, hosts
    )


def redirected(plan: FetchPlan, location: Any) -> FetchPlan | Deny:
    """The plan for the redirect that answered `plan`, judged in full like a first URL. Never sends a body again, and
    keeps headers only towards the same host."""
    if type(location) is not str or len(location) > URL_CHARS_MAX:
        return _forbidden(location, "a redirect to a plain URL", plan.hosts)
    here = f"{plan.scheme}://{plan.host}:{plan.port}{plan.target}"
    try:
        text = urljoin(here, location)
    except ValueError:
        return _forbidden(location, "a redirect to a plain URL", plan.hosts)
    url = _open_url(text, plan.hosts)
    if isinstance(url, Deny):
        return url
    if plan.scheme == "https" and url.scheme != "https":
        return _forbidden(text, "no redirect out of https", plan.hosts)
    same = (url.scheme, url.host, url.port) == (plan.scheme, plan.host, plan.port)
    headers = plan.headers if same else tuple(pair for pair in plan.headers if pair[0] in _HEADERS)
    method = plan.method if plan.method in _METHODS else "GET"
    return FetchPlan(method, url.scheme, url.host, url.port, url.target, headers, None, plan.hosts)


def _open_url(text: str, hosts: frozenset[str] | None) -> Url | Deny:
    url = read_url(text)
    if isinstance(url, str):
        return _forbidden(text, url, hosts)
    if hosts is None:
        if url.host.rpartition(".")[2] in _LOCAL:
            return _forbidden(text, "names of this machine and its network are closed", hosts)
        return url
    if url.scheme != "https" or url.port != PORTS["https"]:
        return _forbidden(text, "https at port 443", hosts)
    if not is_listed(url.host, hosts):
        return _forbidden(text, "the host is not on the list", hosts)
    return url


def _forbidden(text: Any, reason: str, hosts: frozenset[str] | None) -> Deny:
    detail = {"url": shown(text), "reason": reason}
    if hosts is not None:
        detail["hosts"] = sorted(hosts)
    return Deny("forbidden_url", "http.hosts", detail)


def _method(rights: Rights, value: Any) -> str | Deny:
    method = value.upper() if type(value) is str and value.isascii() else ""
    if not rights.http_any:
        return method if method in _METHODS else bad_args("method", "GET or HEAD", method=shown(value))
    if _METHOD.fullmatch(method) is None or method in _METHODS_CLOSED:
        return bad_args("method", "an HTTP method, no tunnel", method=shown(value))
    return method


def _headers(rights: Rights, value: Any) -> tuple[tuple[str, str], ...] | Deny:
    if value is None:
        return ()
    if type(value) is not dict or len(value) > HEADERS_MAX:
        return bad_args("headers", f"an object of at most {HEADERS_MAX} texts")
    found: dict[str, str] = {}
    for key, text in value.items():
        if type(key) is not str or type(text) is not str:
            return bad_args("headers", "names and values as text")
        name = key.lower()
        if _HEADER_NAME.fullmatch(name) is None or name in found:
            return bad_args("headers", "plain names, each once", header=shown(key))
        if name in _HEADERS_OURS or name.startswith("proxy-") or not (rights.http_any or name in _HEADERS):
            return bad_args("headers", "this header is closed", header=shown(key))
        if len(text) > HEADER_CHARS_MAX or _HEADER_VALUE.fullmatch(text) is None:
            return bad_args("headers", "values of printable ASCII", header=shown(key))
        found[name] = text
    return tuple(found.items())


def _body(value: Any) -> bytes | Deny | None:
    if value is None:
        return None
    if type(value) is not str:
        return bad_args("body", "a text")
    try:
        body = value.encode()
    except UnicodeEncodeError:
        return bad_args("body", "Unicode text without lone surrogates")
    if len(body) > BODY_BYTES_MAX:
        return Deny("too_large", "http.size", {"field": "body", "bytes_max": BODY_BYTES_MAX, "bytes": len(body)})
    return body
