"""A copy of a PostgreSQL that the server's account can run, when it cannot come to the original.

A virtual environment below a home folder of mode 0700 is closed to ``nobody``. The copy is kept for
the next time, in a folder that belongs to us and that nobody else can write.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from perfctl.embedded.account import Account
from perfctl.embedded.find import Installation
from perfctl.embedded.home import out_of_reach
from perfctl.errors import UsageError

#: What a server needs of an installation; headers and documentation are left out.
_PARTS = ("bin", "lib", "lib64", "share")
PLACES = (Path("/var/tmp"), Path("/tmp"))


def usable_by(account: Account, installation: Installation, places: Sequence[Path] = PLACES) -> Installation:
    """The installation itself, or a copy of it that the account can run.

    Raises UsageError when it is not of a kind that can be copied, or no folder for copies is safe.
    """
    if not account.dropped or _can_run(account, installation):
        return installation
    if not (installation.prefix / "share").is_dir() or not installation.prefix.parent.name:
        raise out_of_reach(account, installation.bindir)
    target = _cache(account, places) / _key(installation)
    package = installation.prefix.parent.name
    bindir = target / package / installation.prefix.name / "bin"
    wanted = dict(_files(installation))
    if not _complete(target, wanted):
        _copy(wanted, target)
    return dataclasses.replace(installation, bindir=bindir)


def program_usable_by(account: Account, program: Path) -> Path:
    """One self-contained program, or a copy of it that the account can run."""
    if not account.dropped or account.can_reach(program, os.R_OK | os.X_OK):
        return program
    target = _cache(account, PLACES) / _digest(program)
    wanted = {Path(program.name): program}
    if not _complete(target, wanted):
        _copy(wanted, target)
    return target / program.name


def _can_run(account: Account, installation: Installation) -> bool:
    programs = all(account.can_reach(installation.bindir / name, os.R_OK | os.X_OK) for name in ("postgres", "initdb"))
    samples = installation.prefix.glob("share/**/postgres.bki")
    return programs and all(account.can_reach(sample) for sample in samples)


def _files(installation: Installation) -> Iterator[tuple[Path, Path]]:
    """Where each file goes → where it comes from; the layout is kept, since libraries are found by it."""
    prefix = installation.prefix
    package = prefix.parent
    tops = [prefix / part for part in _PARTS]
    # Libraries that a wheel brings along lie beside its package, and are found relative to it.
    tops.append(package.with_name(f"{package.name}.libs"))
    for top in tops:
        for folder, _, names in os.walk(top):
            for name in names:
                source = Path(folder, name)
                yield source.relative_to(package.parent), source


def _complete(target: Path, wanted: dict[Path, Path]) -> bool:
    """Whether every file is there; a cleaner of temporary folders may have taken some."""
    try:
        return all((target / path).stat().st_size == source.stat().st_size for path, source in wanted.items())
    except FileNotFoundError:
        return False


def _copy(wanted: dict[Path, Path], target: Path) -> None:
    """Put a whole copy in place at once, so that no other process ever sees half of it."""
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        fresh.chmod(0o755)
        for path, source in wanted.items():
            place = fresh / path
            for parent in reversed(place.relative_to(fresh).parents[:-1]):
                (fresh / parent).mkdir(exist_ok=True)
                (fresh / parent).chmod(0o755)
            shutil.copyfile(source, place)
            place.chmod(0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644)
        if target.exists():
            # Servers that run from the incomplete copy keep their open files after the rename.
            target.rename(fresh.with_name(f"{fresh.name}-old"))
        fresh.rename(target)
    except OSError:
        # Another process may have been faster; its copy is as good as ours.
        if not _complete(target, wanted):
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(fresh.with_name(f"{fresh.name}-old"), ignore_errors=True)


def _cache(account: Account, places: Sequence[Path]) -> Path:
    """A folder for copies that nobody else can have made or can write. Raises UsageError."""
    for place in places:
        folder = place / f"perfctl-servers-{os.geteuid()}"
        try:
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)
        except FileExistsError:
            pass
        except OSError:
            continue
        found = folder.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
        if ours and not found.st_mode & 0o022 and account.can_reach(folder, os.R_OK | os.X_OK):
            return folder
    raise UsageError(
        f'user "{account.name}", under which the server runs, cannot come to its programs, '
        f"and no folder is safe for a copy: {', '.join(map(str, places))}",
        hint="install perfctl where everybody may read, or run it as a normal user",
    )


def _key(installation: Installation) -> str:
    return f"postgresql-{installation.version}-{_digest(installation.bindir / 'postgres')}"


def _digest(program: Path) -> str:
    """Changes when the program is another one: a new path, or another build at the same path."""
    found = program.stat()
    facts = f"{program}\0{found.st_size}\0{found.st_mtime_ns}"
    return hashlib.sha256(facts.encode()).hexdigest()[:16]
