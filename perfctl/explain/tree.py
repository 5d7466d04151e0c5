"""A plan as lines of a tree, with what weighs and what is misjudged marked. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from perfctl.explain.model import Node, Plan
from perfctl.explain.rule import counted, human

#: an estimate that is off by more is marked
_OFF = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line; ``mark`` is what is remarkable: heavy, off, or nothing."""

    text: str
    mark: str = ""


def lines(plan: Plan) -> list[Line]:
    """The tree, each node with its figures, its conditions below it, and the totals."""
    found: list[Line] = []
    _draw(plan.root, "", "", _Marks(_heaviest(plan), dict(_misjudged(plan))), found)
    if plan.settings:
        found.append(Line("settings: " + ", ".join(f"{name} = {value}" for name, value in plan.settings.items())))
    times = [("planning", plan.planning_ms), ("execution", plan.execution_ms)]
    if said := [f"{name} {human(ms)} ms" for name, ms in times if ms is not None]:
        found.append(Line(", ".join(said)))
    return found


def _heaviest(plan: Plan) -> Node:
    """The node that takes most itself, without what is below it: blocks where it was run, else cost."""
    if plan.was_run:
        return max(plan.nodes(), key=lambda node: (node.blocks or 0) - sum(each.blocks or 0 for each in node.plans))
    return max(_own_costs(plan.root, plan.root.cost), key=lambda found: found[1])[0]


def _own_costs(node: Node, most: float) -> Iterator[tuple[Node, float]]:
    """By node, what it costs itself; ``most`` is what the node above pays: a limit leaves some of it unread."""
    paid = min(node.cost, most)
    yield node, paid - sum(min(each.cost, paid) for each in node.plans)
    for each in node.plans:
        yield from _own_costs(each, paid)


def _misjudged(plan: Plan) -> Iterator[tuple[int, float]]:
    """By a node's identity, for two nodes may be equal."""
    return ((id(node), error) for node, error in plan.q_errors() if error > _OFF)


@dataclass(frozen=True, slots=True)
class _Marks:
    heavy: Node
    off: Mapping[int, float]


def _draw(node: Node, lead: str, below: str, marked: _Marks, found: list[Line]) -> None:
    heavy, off = node is marked.heavy, marked.off.get(id(node))
    marks = (["◀ heaviest"] if heavy else []) + ([f"◀ rows off {human(off)}×"] if off else [])
    named = f"{node.subplan}: " if node.subplan else ""
    text = f"{lead}{named}{node}  {figures(node)}" + ("  " + "  ".join(marks) if marks else "")
    found.append(Line(text, "off" if off else "heavy" if heavy else ""))
    bar = "│ " if node.plans else "  "
    for key, words in node.conditions:
        found.append(Line(f"{below}{bar}  {key}: {words}"))
    if node.rows_removed:
        found.append(Line(f"{below}{bar}  removed by filter: {counted(node.rows_removed, 'row')}"))
    if node.removed:
        found.append(Line(f"{below}{bar}  partitions pruned: {human(node.removed)}"))
    for number, each in enumerate(node.plans):
        last = number == len(node.plans) - 1
        _draw(each, f"{below}{'└─' if last else '├─'} ", f"{below}{'   ' if last else '│  '}", marked, found)


def figures(node: Node) -> str:
    """Estimate, and beside it what came."""
    words = f"cost {human(node.cost)}  rows {human(node.rows)}"
    if node.workers_planned:
        words += f"  workers {human(node.workers_planned)}"
    if node.actual_rows is None:
        return words
    if not node.loops:
        return f"{words}  never executed"
    words += f" → {human(node.actual_rows)}"
    if node.loops > 1:
        words += f" × {human(node.loops)}"
    if node.blocks is not None:
        words += f"  blocks {human(node.blocks)}"
    if node.temp_blocks:
        words += f"  temp {human(node.temp_blocks)}"
    if node.lossy_blocks:
        words += f"  lossy {human(node.lossy_blocks)}"
    if node.heap_fetches:
        words += f"  heap fetches {human(node.heap_fetches)}"
    return words
