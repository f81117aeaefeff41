"""The strategies that come with the program: one folder each, `strategy.toml` naming a Lua file per stage."""

import tomllib
from pathlib import Path
from typing import Final

import msgspec

from contracts.errors import Rejected
from contracts.strategy import STAGES, StrategyBody
from contracts.subjects import check_id
from services.planner.strategy.decider import SeedStrategy

FOLDER: Final = Path(__file__).parent / "strategies"


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    scripts: dict[str, str]
    pattern: str = ".*"
    priority: int = 0
    description: str = ""


def shipped_strategies(folder: Path = FOLDER) -> list[SeedStrategy]:
    """Every shipped strategy, by name. Raises Rejected("bad_config") for a folder that cannot be read."""
    return [_read(path) for path in sorted(folder.glob("*/strategy.toml"))]


def _read(path: Path) -> SeedStrategy:
    try:
        manifest = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _Manifest)
        scripts = {stage: (path.parent / file).read_text(encoding="utf-8") for stage, file in manifest.scripts.items()}
    except (OSError, ValueError) as error:
        raise Rejected("bad_config", f"the shipped strategy {path.parent.name} cannot be read") from error
    unknown = set(scripts) - set(STAGES)
    if unknown:
        raise Rejected("bad_config", f"the shipped strategy {path.parent.name} names no stage: {sorted(unknown)}")
    body = StrategyBody(
        scripts=scripts, pattern=manifest.pattern, priority=manifest.priority, description=manifest.description
    )
    return SeedStrategy(check_id(manifest.name, "strategy name"), body)
