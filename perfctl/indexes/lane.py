"""A session that sends statements one at a time from a thread of its own, for a build holds it as long as it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from perfctl.errors import PerfctlError
from perfctl.indexes.model import Step
from perfctl.indexes.running import HeldUp, Outcome, Progress
from perfctl.servers.postgres import TIME_LIMITS, Postgres

#: What a step does, a stretch at a time: it hands back the turn whenever there is something to wait for.
Task = Generator[None, None, Outcome]

#: Limits that a role or database may set and that would end a long build; those a server lacks are passed over.
LIFTED = {**TIME_LIMITS, "lock_timeout": 0}


class Sender(threading.Thread):
    """Does one thing on a session, rings the bell, and keeps what came of it."""

    def __init__(self, act: Callable[[], Any], bell: threading.Event) -> None:
        super().__init__(name="perfctl-lane", daemon=True)
        self._act = act
        self._bell = bell
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.result: Any = None
        self.started = time.monotonic()

    def run(self) -> None:
        """Do it; never raises."""
        try:
            self.result = self._act()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asks
            self.error = error
        finally:
            self.done.set()
            self._bell.set()

    def take(self) -> Any:
        """What came of it, or what it raised."""
        if self.error is not None:
            raise self.error
        return self.result


class Lane:
    """A session, the step that it is at, and what the server says of it."""

    def __init__(self, pg: Postgres, bell: threading.Event, *, connection_check_s: float) -> None:
        self.pg = pg
        self._bell = bell
        self.sender: Sender | None = None
        #: what the latest look showed, and when; None where the server has no such session any more
        self.progress: Progress | None = None
        self.looked_at = 0.0
        #: whom its statement keeps waiting
        self.held_up: list[HeldUp] = []
        self.settings: dict[str, str] = {}
        self.step: Step | None = None
        self.number = 0
        self.task: Task | None = None
        self.began = 0.0
        #: it undoes what failed, and is not to be stopped by what stopped the rest
        self.cleaning = False
        #: what it sends drops a leftover: to be left to the server when the run leaves at once
        self.dropping = False
        #: what it does now, in words, where the server's phase does not say it
        self.doing = ""
        #: seconds that the step has waited for other transactions, all its statements taken together
        self.waited_s = 0.0
        #: its failure has been told
        self.told = False
        self._connection_check_s = connection_check_s
        self._prepare()

    def renew(self, pg: Postgres) -> None:
        """Go on with another session, for the one that it had is lost."""
        self.pg = pg
        self.settings = {}
        self._prepare()

    def _prepare(self) -> None:
        """Lift what would end a long build, and read back that it is lifted."""
        lifted = [name for name, since in LIFTED.items() if self.pg.major >= since]
        wanted = {**dict.fromkeys(lifted, "0"), "default_transaction_read_only": "off"}
        if self.pg.major >= 14:
            wanted["client_connection_check_interval"] = f"{round(self._connection_check_s * 1000)}ms"
        self.pg.settings(wanted)
        current = self.pg.current(lifted)
        for name, value in current.items():
            if value not in ("0", "0ms"):
                raise PerfctlError(f"{name} is {value} after it was set to 0", hint="is there a pooler in between?")

    def begin(self, number: int, step: Step, task: Task) -> None:
        """Take a step up."""
        self.number, self.step, self.task = number, step, task
        self.began = time.monotonic()
        self.cleaning = self.dropping = self.told = False
        self.doing, self.waited_s = "", 0.0

    def send(self, act: Callable[[], Any]) -> Sender:
        """Do it in the lane's thread; the bell rings when it is over."""
        self.progress = None
        self.held_up = []
        self.looked_at = time.monotonic()
        self.sender = Sender(act, self._bell)
        self.sender.start()
        return self.sender

    @property
    def is_sending(self) -> bool:
        """Something is under way on the server."""
        return self.sender is not None and not self.sender.done.is_set()

    def wanted(self, settings: Sequence[tuple[str, str]]) -> dict[str, str | None]:
        """The settings that differ from what the session has; None for one that is to go back to its default."""
        new = dict(settings)
        changes: dict[str, str | None] = {name: None for name in self.settings if name not in new}
        changes |= {name: value for name, value in new.items() if self.settings.get(name) != value}
        self.settings = new
        return changes
