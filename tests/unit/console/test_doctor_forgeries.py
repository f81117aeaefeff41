"""What the doctor advises after forged messages can be done word for word, and loses nothing that is made once."""

import re
from pathlib import Path

from contracts.permissions import USERS
from contracts.rights import OPERATOR
from services.console.doctor.forgeries import MEND
from services.console.home import Home
from services.console.supervision.broker import prepare
from services.identity.beginning import Beginning
from services.identity.key_file import KeyFile
from services.identity.sealing import Sealer

LOCK = ".identity.lock"
ONCE = ("identity", "identity-began", "audit-ed25519", "audit-ed25519.pub", "set-up-links/aka", "agents/planner-1")


def started(home: Home) -> dict[str, bytes]:
    prepare(home, port=0, sync="always")
    return {str(path.relative_to(home.keys)): path.read_bytes() for path in home.keys.rglob("*") if path.is_file()}


def test_the_keys_of_the_broker_are_new_and_those_that_are_made_once_are_as_they_were(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    file = KeyFile(home.keys / "identity")
    file.create()
    Beginning(home.keys, accounts=True, first_seq=1).done(Sealer(file).public_key, "n1")
    for name in ONCE[2:]:
        (home.keys / name).parent.mkdir(exist_ok=True)
        (home.keys / name).write_text(name)
    before = started(home)
    advised = re.findall(r"keys/(\S+?),? ", MEND)
    for path in [path for name in advised for path in home.keys.glob(name)]:
        path.unlink()
    after = started(home)
    assert after.keys() == before.keys()
    assert {name for name in before if before[name] == after[name]} == {*ONCE, LOCK}
    assert OPERATOR in after
    assert {f"{user.name}.nk" for user in USERS if not user.password} <= after.keys()


def test_no_service_is_accused_of_what_any_key_can_do() -> None:
    assert "service" not in MEND
