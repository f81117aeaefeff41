"""The section `planner` of the configuration."""

from typing import Annotated

import msgspec


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """`lua_children` scripts run at a time; a goal must be decomposed within `plan_timeout_s`.

    Every `sweep_s` the planner looks for plans that a dead planner did not hand over.
    """

    lua_children: Annotated[int, msgspec.Meta(ge=1, le=32)] = 2
    plan_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=100)] = 60.0
    sweep_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0
