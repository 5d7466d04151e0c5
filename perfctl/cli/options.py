"""Options that many commands share, declared once and handed on as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from perfctl.errors import UsageError

if TYPE_CHECKING:
    from perfctl.cli.session import Session
    from perfctl.report import Report


@dataclass(frozen=True, slots=True)
class Options:
    """What was said on the command line; the values here are the defaults."""

    config: Path | None = None
    target: str | None = None
    format: str = "text"
    report: tuple[str, ...] = ()
    timeout: str | None = None
    color: str = "auto"
    quiet: bool = False
    verbose: int = 0
    dry_run: bool = False
    yes: bool = False
    confirm: str | None = None
    no_input: bool = False


def _option(*names: str, env: str | None = None, **facts: Any) -> Any:
    return typer.Option(*names, envvar=env, show_envvar=env is not None, **facts)


_OUTPUT: dict[str, Any] = {
    "format": Annotated[
        str, _option("--format", "-f", env="PERFCTL_FORMAT", help="Form of the result: text, json or ndjson.")
    ],
    "report": Annotated[
        list[str] | None,
        _option("--report", metavar="KIND=PATH", env="PERFCTL_REPORT", help="Write the result to a file too (repeat)."),
    ],
    "color": Annotated[str, _option("--color", env="PERFCTL_COLOR", help="auto, always or never.")],
    "quiet": Annotated[bool, _option("--quiet", "-q", env="PERFCTL_QUIET", help="No progress, no notes.")],
    "verbose": Annotated[
        int, _option("--verbose", "-v", count=True, env="PERFCTL_VERBOSE", help="Say more (twice: statements).")
    ],
}
_SERVER: dict[str, Any] = {
    "config": Annotated[
        Path | None,
        _option("--config", "-c", env="PERFCTL_CONFIG", help="Configuration file; else perfctl.yaml upward from here."),
    ],
    "target": Annotated[
        list[str] | None, _option("--target", "-t", env="PERFCTL_TARGET", help="Target in the configuration.")
    ],
    "timeout": Annotated[
        str | None,
        _option(
            "--timeout",
            env="PERFCTL_TIMEOUT",
            metavar="DURATION",
            help="How long connecting, and each look at a server, may take, as 5s.",
        ),
    ],
}
_WRITE: dict[str, Any] = {
    "dry_run": Annotated[
        bool, _option("--dry-run", "-n", env="PERFCTL_DRY_RUN", help="Show what would be done, do nothing.")
    ],
    "yes": Annotated[bool, _option("--yes", "-y", env="PERFCTL_YES", help="Do not ask.")],
    "confirm": Annotated[
        str | None,
        _option(
            "--confirm",
            env="PERFCTL_CONFIRM",
            metavar="NAME",
            help="Name of the protected target, instead of typing it.",
        ),
    ],
    "no_input": Annotated[bool, _option("--no-input", env="PERFCTL_NO_INPUT", help="Never ask: refuse instead.")],
}


def _refuse_several(targets: Sequence[str]) -> None:
    """Raise UsageError for a second target, which must not be dropped without a word."""
    if len(targets) > 1:
        raise UsageError(f"--target: one at a time; {', '.join(targets)} were named")


def command(
    app: typer.Typer,
    name: str,
    *,
    group: str = "",
    server: bool = True,
    writes: bool = False,
    config: bool = True,
    bundle: tuple[str, Mapping[str, Any]] | None = None,
) -> Callable[[Callable[..., Report]], Callable[..., Report]]:
    """Register ``function(session, …) -> Report`` as a command with the shared options behind its own.

    ``bundle`` names a parameter that takes the values of several options, declared elsewhere, as one mapping.
    Without a name it is what the group does when no command of it is named. ``config=False`` is for a command
    that has nothing to do with a configuration.
    """
    found = _SERVER if server else {"config": _SERVER["config"]} if config else {}
    shared = {**_OUTPUT, **found, **(_WRITE if writes else {})}
    bundled = dict(bundle[1]) if bundle else {}

    def register(function: Callable[..., Report]) -> Callable[..., Report]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        if bundle:
            own = [parameter for parameter in own if parameter.name != bundle[0]]
            own += [
                inspect.Parameter(
                    key,
                    inspect.Parameter.KEYWORD_ONLY,
                    annotation=annotation,
                    default=False if get_args(annotation)[0] is bool else None,
                )
                for key, annotation in bundled.items()
            ]
        defaults = {field.name: field.default for field in fields(Options)}
        extra = [
            inspect.Parameter(
                key,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation,
                default=None if key == "report" else defaults[key],
            )
            for key, annotation in shared.items()
        ]

        def run(**given: Any) -> None:
            from perfctl.cli.session import execute

            if not name and _goes_on(given.pop("context")):
                return
            options = {key: given.pop(key) for key in shared}
            if bundle:
                given[bundle[0]] = {key: given.pop(key) for key in bundled}
            options["report"] = tuple(options["report"] or ())
            targets = options.pop("target", None) or ()
            options["target"] = targets[0] if targets else None

            def body(session: Session) -> Report:
                _refuse_several(targets)
                return function(session, **given)

            execute(f"{group} {name}".strip(), Options(**options), body)

        if not name:
            extra.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + extra
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__doc__ = function.__doc__
        run.__name__ = function.__name__
        (app.command(name) if name else app.callback(invoke_without_command=True))(run)
        return function

    return register


def _goes_on(context: typer.Context) -> bool:
    """Whether a command of the group is named; an option before it is the group's own, and would be lost."""
    if context.invoked_subcommand is None:
        return False
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            context.fail(f"{parameter.opts[0]} belongs behind {context.invoked_subcommand}")
    return True
