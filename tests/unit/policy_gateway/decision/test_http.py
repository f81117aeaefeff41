"""Requests and their redirects."""

from typing import Any

import pytest

from services.policy_gateway.decision.http import redirected
from services.policy_gateway.decision.plans import FetchPlan
from services.policy_gateway.decision.url import Url, is_address, is_listed, read_url
from services.policy_gateway.decision.verdict import Deny
from tests.unit.policy_gateway.decision.verdicts import allowed, denied

HOSTS = frozenset({"hexdocs.pm", "docs.rs", "github.com"})


def fetch(role: str, **args: Any) -> FetchPlan:
    plan = allowed(role, "http", args)
    assert isinstance(plan, FetchPlan)
    return plan


def test_a_request_is_planned_part_by_part() -> None:
    plan = fetch("researcher", url="HTTPS://GitHub.com/a/b?q=1#part", method="head", headers={"Accept": "text/html"})
    assert plan == FetchPlan("HEAD", "https", "github.com", 443, "/a/b?q=1", (("accept", "text/html"),), None, HOSTS)
    assert fetch("researcher", url="https://docs.rs").target == "/"
    post = fetch("admin", url="http://example.org:8080/x", method="post", body="é")
    assert (post.scheme, post.port, post.body, post.hosts) == ("http", 8080, "é".encode(), None)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/other", ("hexdocs.pm", "/other")),
        ("other?x=1", ("hexdocs.pm", "/phoenix/other?x=1")),
        ("https://docs.rs/x", ("docs.rs", "/x")),
        ("//github.com/x", ("github.com", "/x")),
        ("https://hexdocs.pm", ("hexdocs.pm", "/")),
    ],
)
def test_a_redirect_is_followed_where_the_role_may_go(location: str, target: tuple[str, str]) -> None:
    plan = redirected(fetch("researcher", url="https://hexdocs.pm/phoenix/Phoenix.html"), location)
    assert isinstance(plan, FetchPlan)
    assert (plan.host, plan.target) == target


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.com/",
        "//evil.com/x",
        "http://hexdocs.pm/",
        "https://hexdocs.pm:8443/",
        "https://hexdocs.pm@evil.com/",
        "https://hexdocs.pm.evil.com/",
        "/\\evil.com",
        "\\\\evil.com",
        "https://127.0.0.1/",
        "file:///etc/passwd",
        "https://[::1",
        "x" * 3000,
        None,
        7,
    ],
)
def test_a_redirect_is_judged_like_a_first_url(location: Any) -> None:  # G52
    judged = redirected(fetch("researcher", url="https://hexdocs.pm/x"), location)
    assert isinstance(judged, Deny)
    assert judged.code == "forbidden_url"


def test_a_redirect_takes_neither_secrets_nor_bodies_along() -> None:
    first = fetch(
        "admin", url="https://a.example/x", method="POST", body="b", headers={"Authorization": "s", "Accept": "x"}
    )
    elsewhere = redirected(first, "https://b.example/")
    assert isinstance(elsewhere, FetchPlan)
    assert (elsewhere.method, elsewhere.headers, elsewhere.body) == ("GET", (("accept", "x"),), None)
    same = redirected(first, "/y")
    assert isinstance(same, FetchPlan)
    assert same.headers == first.headers
    assert isinstance(redirected(first, "http://a.example/"), Deny)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://93.184.216.34/", "93.184.216.34"),
        ("https://[2606:2800:220:1:0:0:0:1]/", "[2606:2800:220:1::1]"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("https://a-b.example:1/", "a-b.example"),
        ("https://3com.example/", "3com.example"),
    ],
)
def test_a_host_has_one_form(text: str, host: str) -> None:
    url = read_url(text)
    assert isinstance(url, Url)
    assert url.host == host
    assert is_address(host) == (host[0] in "[9")


@pytest.mark.parametrize(
    "host", ["1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "0x7f.0.0.1", "a.1", "a.0x1", "1", "[::1%25a]"]
)
def test_what_could_be_an_address_to_somebody_is_none_to_us(host: str) -> None:
    assert isinstance(read_url(f"https://{host}/"), str)


def test_names_below_are_open_only_when_written_so() -> None:
    assert is_listed("docs.rs", frozenset({"docs.rs"}))
    assert not is_listed("a.docs.rs", frozenset({"docs.rs"}))
    assert is_listed("b.a.docs.rs", frozenset({"*.docs.rs"}))
    assert not is_listed("docs.rs", frozenset({"*.docs.rs"}))
    assert not is_listed("evildocs.rs", frozenset({"*.docs.rs"}))


def test_refusals_show_what_was_asked() -> None:
    code, detail = denied("researcher", "http", {"url": "https://evil.com/?" + "x" * 3000})
    assert code == "forbidden_url"
    assert len(detail["url"]) < 400
    assert denied("researcher", "http", {"url": "https://docs.rs", "method": "POST"})[1]["field"] == "method"
    assert denied("coder", "shell", {"cmd": ["mix"]}, {"net": "allow"})[1]["field"] == "opts.net"
    assert denied("researcher", "http", {"url": "https://docs.rs"}, {"net": "deny"})[1]["field"] == "opts.net"
    assert allowed("researcher", "http", {"url": "https://docs.rs"}, {"net": "allow"})
