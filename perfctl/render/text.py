"""The report on a terminal: one table, colours by status."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perfctl.render import plain
from perfctl.render.plain import escape, summary
from perfctl.report import Item, Report, Status

#: columns below which a table would fold its names into slivers
NARROW = 72

STYLES = {
    Status.OK: "green",
    Status.CHANGED: "bold green",
    Status.PLANNED: "cyan",
    Status.SKIPPED: "dim",
    Status.FINDING: "bold yellow",
    Status.UNKNOWN: "magenta",
    Status.FAILED: "bold red",
}


#: lines of a drawing that are to be seen
_MARKS = {"heavy": "bold yellow", "off": "bold red"}


def render(report: Report, console: Console) -> None:
    """Print it. Names and texts are never read as markup."""
    if console.width < NARROW:
        # Three columns do not fit: the lines of a pipe wrap where they must and lose nothing.
        console.print(Text(plain.render(report).rstrip("\n")), soft_wrap=True)
        return
    for note in report.notes:
        console.print(Text(escape(note), style="dim"))
    for item in report.items:
        if "lines" in item.data:
            _draw(item, console)
    listed = [item for item in report.items if "lines" not in item.data]
    if listed:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=False)
        # A list of settings has nothing to judge.
        judged = any(item.kind != "setting" for item in report.items)
        if judged:
            table.add_column("status", no_wrap=True)
        table.add_column("name", overflow="fold")
        table.add_column("detail", overflow="fold", ratio=1)
        for item in listed:
            status = [Text(str(item.status), style=STYLES[item.status])] if judged else []
            table.add_row(*status, Text(escape(item.name)), _detail(item))
        console.print(table)
    console.print(Text(summary(report), style="bold"))


def _draw(item: Item, console: Console) -> None:
    """A drawing stands for itself; a line that is too long goes on in the next."""
    console.print(Text(escape(item.name), style="bold"))
    for line in item.data["lines"]:
        console.print(Text(escape(line["text"]), style=_MARKS.get(line["mark"], "")), soft_wrap=True)
    console.print()


def _detail(item: Item) -> Text:
    text = Text("\n".join(escape(line) for line in item.detail.splitlines()))
    if statement := item.data.get("statement"):
        text.append("\n" + "\n".join(escape(line) for line in str(statement).splitlines()), style="dim")
    for who in item.data.get("waits_for", ()):
        text.append(f"\nwaits for {escape(who)}", style="yellow")
    if item.remedy:
        text.append(f"\n= {escape(item.remedy)}", style="cyan")
    return text
