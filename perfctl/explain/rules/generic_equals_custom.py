"""``generic_equals_custom``: the plan for any value reads tables as the plan for these values does.

A prepared statement is planned for any value once five executions cost no less than that
(choose_custom_plan, src/backend/utils/cache/plancache.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from perfctl.explain.model import GENERIC
from perfctl.explain.rule import HOLDS, BadRule, Evidence, Standard, Verdict, cannot_tell, fails


@dataclass(frozen=True, slots=True)
class GenericEqualsCustom(Standard):
    """Another access path is a finding."""

    may_tie = True
    takes_generic = True

    @classmethod
    def read(cls, value: Any) -> Self:
        """From true."""
        if value is not True:
            raise BadRule("expected true")
        return cls()

    def judge(self, seen: Evidence) -> Verdict:
        """Compares how each relation is read."""
        if seen.angle == GENERIC:
            return HOLDS
        if seen.generic is None:
            return cannot_tell("there is no generic plan of it")
        if (small := seen.small_says()) is not None:
            return small
        mine, any_value = set(seen.plan.access), set(seen.generic.access)
        if mine == any_value:
            return HOLDS
        other = next(
            (n for n in seen.generic.nodes() if (n.type, str(n.relation), n.index or "") in any_value - mine), None
        )
        saw = f"the generic plan reads otherwise: {other or seen.generic.root}"
        return fails(saw, other, "plan_cache_mode = force_custom_plan for the role, or no prepared statement here")
