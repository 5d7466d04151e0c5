"""The file of a backup: what was written comes back, and what was changed since is told."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from perfctl.cache.backup import Backup, Record, Saved
from perfctl.cache.model import Traits
from perfctl.cache.restore import Restore, Restored, is_damaged
from perfctl.errors import CommandFailed, ConnectionLost, Denied, Incomplete, Refused, UsageError
from perfctl.servers.redis import Address, pack


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
            assert "backup" in refused(path)


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


class FakeServer:
    """Takes RESTORE, or says what it is told to; a deployment, its one primary and the connection to it."""

    #: it is the lock too, which nobody takes
    lost = False

    kind = "single"
    version = "Fake 1"
    address = Address("fake", 1)
    slots = range(0)
    answer_within_s: float | None = 5.0

    def __init__(self, says: Mapping[object, object] | None = None) -> None:
        self.says = says or {}
        self.had: list[tuple[list[object], float | None]] = []

    def primaries(self) -> list[FakeServer]:
        return [self]

    def open(self, _: object) -> FakeServer:
        return self

    def close(self) -> None:
        pass

    def renew(self) -> None:
        pass

    def calls(self, commands: Sequence[tuple[object, ...]]) -> list[object]:
        if commands[0][0] == "TIME":
            return [[b"1000", b"0"]]
        self.had.append(([command[1] for command in commands], self.answer_within_s))
        replies = [self.says.get(command[1], b"OK") for command in commands]
        for reply in replies:
            if isinstance(reply, ConnectionLost):
                raise reply
        return replies


def restored(server: FakeServer, records: Sequence[Record]) -> Restored:
    return Restore(server, overwrite=False, lock=server).run(records)  # type: ignore[arg-type]


def of_size(*sizes: int) -> list[Record]:
    return [Record(b"%d" % number, 0, b"x" * size) for number, size in enumerate(sizes)]


def test_a_large_value_goes_alone_and_has_more_time() -> None:
    server = FakeServer()
    assert restored(server, of_size(10, 10, 200_000, 100_000, 4_000_000, 10, 10)).restored == 7
    assert [keys for keys, _ in server.had] == [[b"0"], [b"1", b"2"], [b"3"], [b"4"], [b"5", b"6"]]
    times = [within_s for _, within_s in server.had]
    assert times[:3] == [5, 5, 5]
    assert times[3] is not None
    assert 70 < times[3] < 90
    assert server.answer_within_s == 5


@pytest.mark.parametrize("code", ["OOM", "READONLY", "MISCONF"])
def test_what_was_restored_is_told_when_the_server_takes_no_more(code: str) -> None:
    server = FakeServer({b"3": CommandFailed(f"RESTORE: {code} no more", code=code)})
    with pytest.raises(Incomplete, match="stopped after 9 keys"):
        restored(server, of_size(*[1] * 10))
    with pytest.raises(CommandFailed):
        restored(FakeServer({b"0": CommandFailed(code, code=code)}), of_size(1, 1))


def test_replies_that_do_not_come_are_no_promise_that_nothing_was_changed() -> None:
    with pytest.raises(Incomplete):
        restored(FakeServer({b"0": ConnectionLost("gone")}), of_size(1, 1))


def test_a_right_that_some_keys_lack_ends_it_with_what_was_restored() -> None:
    with pytest.raises(Incomplete, match="stopped after 2 keys"):
        restored(FakeServer({b"1": Denied("no")}), of_size(1, 1, 1))
    with pytest.raises(Denied):
        restored(FakeServer({b"0": Denied("no")}), of_size(1, 1, 1))


def test_the_checksum_of_a_value() -> None:
    # The check value of CRC-64 of Jones.
    payload = b"123456789" + 0xE9C6D914C4B8D9CA.to_bytes(8, "little")
    assert not is_damaged(payload)
    assert is_damaged(b"0" + payload[1:])
    assert is_damaged(payload[:5])
    refused = CommandFailed("RESTORE: ERR DUMP payload version or checksum are wrong", code="ERR")
    # A newer server's values are none that are damaged.
    with pytest.raises(Refused, match="Fake 1 cannot read"):
        restored(FakeServer({b"k": refused}), [Record(b"k", 0, payload)])
    done = restored(FakeServer({b"k": refused}), [Record(b"k", 0, b"broken value"), *of_size(1)])
    assert (done.restored, done.failed) == (1, {"the value in the backup is damaged": 1})
