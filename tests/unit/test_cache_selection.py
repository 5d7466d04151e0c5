"""Which keys of a page are meant, by plain replies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from perfctl.cache.decide import Plan, estimate, plan, read_plan
from perfctl.cache.model import Found, Look, Manner, Question, Ttl
from perfctl.cache.probe import lag_bytes
from perfctl.cache.selection import Command, Selection
from perfctl.errors import CommandFailed, Denied, UsageError


def meant(question: Question, replies: Sequence[object], keys: Sequence[bytes] = (b"a", b"b", b"c")) -> list[bytes]:
    asked: list[Command] = []

    def ask(commands: Sequence[Command]) -> Sequence[object]:
        asked.extend(commands)
        return replies

    found = Selection(question).meant(list(keys), ask)
    assert not asked or len(asked) == len(replies)
    assert not any(command[:2] == ("MEMORY", "USAGE") and command[3:] != ("SAMPLES", 5) for command in asked)
    return found


def test_names_alone_ask_nothing() -> None:
    assert meant(Question(b"*", exclude=(b"b*",)), []) == [b"a", b"c"]


def test_a_time_to_live_within_its_ends() -> None:
    # -1 does not expire, -2 is gone.
    assert meant(Question(b"*", ttl=Ttl(1000, 5000)), [1000, 5001, -1]) == [b"a"]
    assert meant(Question(b"*", ttl=Ttl(0, None)), [-2, 7, -1]) == [b"b"]
    assert meant(Question(b"*", ttl=Ttl(none=True)), [-2, 7, -1]) == [b"c"]


def test_several_traits_belong_to_their_keys() -> None:
    question = Question(b"*", idle_s=60, larger_bytes=100, smaller_bytes=1000)
    assert meant(question, [60, 101, 60, 100, 59, 500]) == [b"a"]
    selection = Selection(question)
    assert selection.meant([b"a", b"b"], lambda _: [99, 1001, 99, 1000]) == [b"b"]
    assert selection.too_large == 1


def test_keys_that_are_gone_or_elsewhere_are_not_meant() -> None:
    elsewhere = CommandFailed("MEMORY USAGE: MOVED 1 host:1", code="MOVED")
    assert meant(Question(b"*", larger_bytes=1), [None, elsewhere, 5]) == [b"c"]
    gone = CommandFailed("OBJECT: ERR no such key", code="ERR")
    assert meant(Question(b"*", idle_s=1), [gone, 5, None]) == [b"b"]


def test_what_cannot_be_asked_is_told() -> None:
    with pytest.raises(Denied):
        meant(Question(b"*", larger_bytes=1), [Denied("no"), 1, 1])
    lfu = CommandFailed("OBJECT: ERR An LFU maxmemory policy is selected", code="ERR")
    with pytest.raises(UsageError):
        meant(Question(b"*", idle_s=1), [lfu, lfu, lfu])


def test_a_plan_is_read_back_and_allows_a_tenth() -> None:
    made = plan(Question(b"a*"), "here", (0,), 1000)
    assert read_plan(made.id) == made
    assert [made.moved(keys) for keys in (899, 900, 1100, 1101)] == [True, False, False, True]
    for other in (Question(b"b*"), Question(b"a*", type="hash"), Question(b"a*", ttl=Ttl(none=True))):
        assert plan(other, "here", (0,), 1000).what != made.what
    assert plan(Question(b"a*"), "there", (0,), 1000).what != made.what
    assert plan(Question(b"a*"), "here", (1,), 1000).what != made.what


@pytest.mark.parametrize("text", ["", "x", "0123456789", "0123456789-", "0123456789-x", "0123456789--1", "12-3"])
def test_what_is_no_plan_is_none(text: str) -> None:
    assert read_plan(text) is None


def test_the_id_of_a_plan_names_its_keys() -> None:
    assert Plan("0123456789", 5).id == "0123456789-5"


def part(keys: int, matched: int, server_s: float | None) -> Found:
    return Found("s", keys, matched, {}, {}, (), 1.0, 0, server_s)


def test_what_a_flush_takes_by_what_the_look_took() -> None:
    # Two walks of a second each, and a million times 1.35 µs.
    found = estimate(Look((part(1_000_000, 1_000_000, 1.0),)), Manner())
    assert found is not None
    assert (round(found.server_s, 2), round(found.seconds, 2)) == (3.35, 4.19)
    two = estimate(Look((part(1_000_000, 0, 1.0), part(1_000_000, 0, 2.0))), Manner(passes=1))
    assert two is not None
    assert (two.server_s, two.seconds) == (3.0, 2.5)
    slow = estimate(Look((part(1000, 1000, 0.001),)), Manner(rate=100))
    assert slow is not None
    assert slow.seconds == 10
    assert estimate(Look((part(10, 5, None),)), Manner()) is None


def test_how_far_replicas_are_behind() -> None:
    told = {
        "role": "master",
        "master_repl_offset": "1000",
        "slave0": "ip=127.0.0.1,port=1,state=online,offset=900,lag=0",
        "slave1": "ip=127.0.0.1,port=2,state=online,offset=400,lag=1",
        "slave2": "ip=127.0.0.1,port=3,state=wait_bgsave,offset=0,lag=0",
    }
    assert lag_bytes(told) == 600
    assert lag_bytes({"role": "master", "master_repl_offset": "7"}) == 0
