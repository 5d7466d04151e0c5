"""The file of a backup: what was written comes back, and what was changed since is told."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from perfctl.cache.backup import Backup, Saved
from perfctl.cache.model import Traits
from perfctl.errors import UsageError
from perfctl.servers.redis import pack


class FakeNode:
    """Answers TIME alone."""

    def call(self, *words: object) -> list[bytes]:
        assert words == ("TIME",)
        return [b"1000", b"0"]


def kept(backup: Backup, values: dict[bytes, bytes | None]) -> list[bool]:
    traits = [Traits(pttl_ms=500, size_bytes=100)] * len(values)
    return backup.keep(list(values), traits, lambda asked: [values[key] for _, key in asked], FakeNode())  # type: ignore[arg-type,index]


def written(path: Path, *rounds: dict[bytes, bytes | None], whole: bool = True) -> bytes:
    backup = Backup(path, {"server": "x"})
    for values in rounds:
        kept(backup, values)
    backup.close(whole=whole)
    assert backup.whole == whole
    return path.read_bytes()


VALUES: dict[bytes, bytes | None] = {b"key:%d" % number: b"value %d" % number for number in range(20)}
HEAD = pack(("ECHO", b'perfctl cache backup 1 {"server": "x"}'))


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        list(Saved(path).records())
    return caught.value.message


def test_a_key_that_was_written_twice_has_its_last_value(tmp_path: Path) -> None:
    path = tmp_path / "b"
    written(path, {b"a": b"old", b"b": b"1"}, {b"a": b"new", b"gone": None})
    saved = Saved(path)
    assert sorted(saved.names()) == [b"a", b"b"]
    assert saved.whole
    assert [(each.key, each.payload, each.expires_at_ms) for each in saved.records()] == [
        (b"b", b"1", 1_000_500),
        (b"a", b"new", 1_000_500),
    ]
    assert len(list(Saved(path).records())) == 2


def test_every_changed_byte_is_told(tmp_path: Path) -> None:
    path = tmp_path / "b"
    data = written(path, dict(list(VALUES.items())[:4]))
    # The last line alone can pass for an end that breaks off.
    for at in range(data.rindex(b"*2\r\n")):
        for byte in (data[at] ^ 1, data[at] ^ 0x10):
            path.write_bytes(data[:at] + bytes([byte]) + data[at + 1 :])
            refused(path)


def test_records_that_are_cut_out_or_put_in_are_told(tmp_path: Path) -> None:
    path = tmp_path / "b"
    data = written(path, VALUES)
    parts = data.split(b"*5\r\n")
    path.write_bytes(b"*5\r\n".join(parts[:5] + parts[8:]))
    assert "holds 17 values, and its end says 20" in refused(path)
    path.write_bytes(data + b"*5\r\n" + parts[3])
    assert "behind its end" in refused(path)
    path.write_bytes(data.replace(b"end 20 ", b"end 21 "))
    assert "its end says 21" in refused(path)


def test_a_file_that_breaks_off_anywhere_gives_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "b"
    data = written(path, VALUES)
    assert written(tmp_path / "c", VALUES, whole=False) == data[: data.rindex(b"*2\r\n")]
    for length in range(len(HEAD), len(data) - 1):
        path.write_bytes(data[:length])
        saved = Saved(path)
        found = list(saved.records())
        assert not saved.whole
        assert len(found) == data[:length].count(b"ABSTTL\r\n")


@pytest.mark.parametrize(
    "data",
    [
        pack(("ECHO", b'perfctl cache backup 1 {"server: "x"}')),
        pack(("ECHO", b"perfctl cache backup 1 []")),
        HEAD + pack(("ECHO",)),
        HEAD + pack(("ECHO", b"hello")),
        HEAD + pack(("RESTORE", b"k", b"12x", b"p", b"ABSTTL")),
        HEAD + pack(("RESTORE", b"k", b"-5", b"p", b"ABSTTL")),
        HEAD + pack(("RESTORE", b"k", b"9" * 19, b"p", b"ABSTTL")),
        HEAD + pack(("RESTORE", b"k", b"9" * 5000, b"p", b"ABSTTL")),
        HEAD + pack(("FLUSHALL",)),
        HEAD + b"*1000000000\r\n$1\r\nx\r\n",
        HEAD + b"*0\r\n",
        HEAD + b":1\r\n",
        HEAD + b"*5\r\n$99999999999999999999999999\r\n",
        HEAD + b"*1\r\n$-1\r\n",
    ],
)
def test_what_no_backup_holds_is_damage(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b").write_bytes(data)
    assert "damaged" in refused(tmp_path / "b")


def test_a_wild_length_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.write_bytes(HEAD + b"*5\r\n$7\r\nRESTORE\r\n$1\r\nk\r\n$1\r\n0\r\n$999999999999\r\nx")
    assert list(Saved(path).records()) == []


def test_a_pipe_is_no_backup(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert "no regular file" in refused(path)
    assert "no regular file" in refused(tmp_path)
    assert "cannot be read" in refused(tmp_path / "missing")


def test_a_full_disk_ends_the_file_at_a_whole_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b"
    backup = Backup(path, {"server": "x"})
    kept(backup, {b"a": b"1"})
    genuine = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) > 20:
            return genuine(file, data[:20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(UsageError, match="No space left"):
            kept(backup, {b"b": b"2"})
    # There is room again, and still nothing more is taken.
    with pytest.raises(UsageError, match="No space left"):
        kept(backup, {b"c": b"3"})
    backup.close(whole=True)
    assert (backup.whole, backup.keys, backup.size_bytes) == (False, 1, path.stat().st_size)
    assert backup.problem is not None
    assert [each.key for each in Saved(path).records()] == [b"a"]


def test_an_end_that_cannot_be_written_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b"
    backup = Backup(path, {"server": "x"})
    kept(backup, {b"a": b"1"})

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        backup.close(whole=True)
    assert not backup.whole
    assert "No space left" in str(backup.problem)


def test_several_may_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "b"
    backup = Backup(path, {"server": "x"})
    threads = [
        threading.Thread(target=lambda n=n: [kept(backup, {b"%d:%d" % (n, i): b"v"}) for i in range(20)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backup.close(whole=True)
    saved = Saved(path)
    assert (len(list(saved.records())), saved.whole) == (80, True)
    assert json.dumps(saved.facts) == '{"server": "x"}'
