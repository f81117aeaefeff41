"""What lies in a gate's mailbox counts only if somebody who may write there put it there, and not the broker."""

import msgspec
import pytest

from contracts.approval import RequestApproval, WithdrawApproval, action_digest
from contracts.streams import COMMANDS, DEAD_LETTERS
from contracts.subjects import command, dead_letter
from tests.support.eventually import eventually
from tests.unit.identity.desk import ACTION, Hall

REQUEST = RequestApproval(
    run_id="r1", task_id="deploy", title="deploy", digest=action_digest(ACTION), action=ACTION, approvers=[]
)


FORGED = (
    (command("identity", "approval", "apr-false", "request"), msgspec.json.encode(REQUEST)),
    (command("identity", "approval", "apr-true", "withdraw"), msgspec.json.encode(WithdrawApproval("they say so"))),
)


async def by_itself(hall: Hall) -> None:
    for subject, data in FORGED:
        hall.bus.publish(subject, data)


async def by_the_broker(hall: Hall) -> None:
    """Somebody's own stream, of which the broker sends a message wherever its reply is to go."""
    config = {"name": "LIES", "subjects": ["lies.*"], "storage": "memory", "allow_direct": True}
    await hall.bus.api("STREAM.CREATE.LIES", config)
    for number, (subject, data) in enumerate(FORGED, start=1):
        hall.bus.publish(f"lies.{number}", data)  # one that names its stream would be refused by the other
        hall.bus.publish("$JS.API.DIRECT.GET.LIES", msgspec.json.encode({"seq": number}), reply=subject)


@pytest.mark.parametrize("carried", [by_itself, by_the_broker])
async def test_a_message_that_does_not_name_the_mailbox_opens_no_gate_and_withdraws_none(hall: Hall, carried):
    await hall.request("apr-true")
    await carried(hall)

    async def put_aside() -> bool:
        aside = dead_letter(COMMANDS)
        return (await hall.bus.subjects(DEAD_LETTERS, aside)).get(aside, 0) == len(FORGED)

    await eventually(put_aside)
    assert (await hall.status("apr-false"), await hall.status("apr-true")) == ("", "open")
