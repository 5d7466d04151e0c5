"""The report as aligned lines for a pipe or a file: no colour, no boxes, never wrapped."""

from __future__ import annotations

import unicodedata

from perfctl.report import Report, Status

#: SGR codes; only ``--color always`` puts them into a pipe
_COLOURS = {
    Status.OK: "32", Status.CHANGED: "1;32", Status.PLANNED: "36", Status.SKIPPED: "2",
    Status.FINDING: "1;33", Status.UNKNOWN: "35", Status.FAILED: "1;31",
}  # fmt: skip


def render(report: Report, *, colour: bool = False) -> str:
    """Lines with a line end each; the layout is the same with colour."""
    lines = [escape(note) for note in report.notes]
    # A list of settings has nothing to judge.
    judged = any(item.kind != "setting" for item in report.items)
    status = max((len(item.status) for item in report.items), default=0)
    name = min(63, max((len(escape(item.name)) for item in report.items), default=0))
    for item in report.items:
        if drawn := item.data.get("lines"):
            # A drawing stands for itself.
            lines += [escape(item.name), *(escape(line["text"]) for line in drawn), ""]
            continue
        first, *rest = item.detail.splitlines() or [""]
        head = f"{item.status:<{status}}  " if judged else ""
        if colour and judged:
            head = f"\x1b[{_COLOURS[item.status]}m{head}\x1b[0m"
        lines.append(f"{head}{escape(item.name):<{name}}  {escape(first)}".rstrip())
        indent = " " * (status + 2)
        lines += [f"{indent}{escape(line)}" for line in rest]
        if statement := item.data.get("statement"):
            lines += [f"{indent}{escape(line)}" for line in str(statement).splitlines()]
        lines += [f"{indent}waits for {escape(who)}" for who in item.data.get("waits_for", ())]
        if item.remedy:
            lines.append(f"{indent}= {escape(item.remedy)}")
    lines.append(summary(report))
    return "\n".join(lines) + "\n"


def summary(report: Report) -> str:
    """The last line: what there was of each status, and how long it took."""
    counts = ", ".join(f"{number} {status}" for status, number in report.counts.items()) or "nothing"
    dry = " (dry run)" if report.dry_run else ""
    target = f" on {escape(report.target)}" if report.target else ""
    return f"{report.command}{dry}{target}: {counts} in {report.duration_s:.1f} s"


def escape(text: str) -> str:
    """Text from a server or a file with its control characters made visible, so that none acts on a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character == "\t" or unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp")
        else f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
        for character in text
    )  # fmt: skip
