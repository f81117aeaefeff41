"""The console lists every gate there is, however many fit into one answer."""

import pytest

from services.console import gate_list
from services.console.connection import Console
from services.console.gate_list import listed
from tests.unit.identity.desk import Hall


@pytest.mark.parametrize("page", [1, 2, 500])
async def test_all_gates_are_listed_whatever_fits_into_a_page(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(gate_list, "PAGE", page)
    await hall.enrol()
    for number, left_s in enumerate((9, 5, 5, 7, 3)):
        await hall.request(f"apr-{number}", timeout_ms=left_s * 60_000, run_id=f"r{number % 2}")
    said = await hall.converse("approval.deny", "Aka", hall.code(), gates=[{"approval_id": "apr-4"}])
    assert said["state"] == "confirmed"
    console = Console(hall.bus, 15)
    told = [gate["approval_id"] for gate in await listed(console)]
    assert told == ["apr-1", "apr-2", "apr-3", "apr-0"]
    assert [gate["approval_id"] for gate in await listed(console, everything=True)] == [*told, "apr-4"]
    assert [gate["approval_id"] for gate in await listed(console, run_id="r1")] == ["apr-1", "apr-3"]
