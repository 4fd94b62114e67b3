"""Concurrency slots: slow mail servers leave enough of them, however many there are."""

import time
from contextlib import ExitStack
from dataclasses import replace
from threading import Thread

import pytest

from portal.mail_servers.smtp import concurrency
from portal.mail_servers.smtp.concurrency import ConcurrencyLimits, ConcurrencySlots
from tests.later_clock import LaterClock
from tests.processes import wait_for

QUICK = ConcurrencyLimits(per_server=4, total=12, max_wait=0, slow_after=600)
PATIENT = ConcurrencyLimits(max_wait=60, slow_after=600)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> LaterClock:
    """The time that slots are held."""
    clock = LaterClock()
    monkeypatch.setattr(concurrency, "time", clock)
    return clock


def acquire(slots: ConcurrencySlots, held: ExitStack, key: str, wanted: int) -> int:
    """Try to acquire this many slots for the key, hold those that are free, and return how many."""
    return sum(held.enter_context(slots.acquire(key)) for _ in range(wanted))


def make_slow(clock: LaterClock, slots: ConcurrencySlots, *keys: str) -> None:
    """Hold a slot of each key for long enough that its mail server counts as slow."""
    with ExitStack() as held:
        for key in keys:
            assert acquire(slots, held, key, 1)
        clock.later += 2 * QUICK.slow_after


def wait_for_waiters(slots: ConcurrencySlots, count: int) -> None:
    wait_for(lambda: len(slots._waiters) == count)


def test_a_mail_server_gets_its_slots_and_no_more() -> None:
    slots = ConcurrencySlots(QUICK)
    with ExitStack() as held:
        assert acquire(slots, held, "a", 6) == 4
    with ExitStack() as held:
        assert acquire(slots, held, "a", 6) == 4, "the slots were released"


def test_a_mail_server_with_a_lower_limit_is_waited_for_too() -> None:
    slots = ConcurrencySlots(replace(PATIENT, per_server=4))
    with ExitStack() as held, ExitStack() as later:
        for _ in range(2):
            assert held.enter_context(slots.acquire("a", at_most=2))
        waiter = Thread(target=lambda: later.enter_context(slots.acquire("a", at_most=2)))
        waiter.start()
        wait_for_waiters(slots, 1)
        held.close()
        waiter.join(60)
        assert len(slots._in_use["a"]) == 1


def test_each_of_many_mail_servers_leaves_slots_to_the_others() -> None:
    with ExitStack() as held:
        slots = ConcurrencySlots(QUICK)
        assert [acquire(slots, held, key, 6) for key in "abcde"] == [4, 4, 2, 1, 1]


def test_slow_mail_servers_share_half_of_the_slots(clock: LaterClock) -> None:
    slots = ConcurrencySlots(QUICK)
    make_slow(clock, slots, *"abcdefgh")
    with ExitStack() as held:
        assert [acquire(slots, held, key, 6) for key in "abcdefgh"] == [2, 2, 2, 0, 0, 0, 0, 0]
        assert acquire(slots, held, "healthy", 6) == 3


def test_a_silent_mail_server_is_slow_before_its_message_ends(clock: LaterClock) -> None:
    slots = ConcurrencySlots(QUICK)
    with ExitStack() as held:
        assert acquire(slots, held, "a", 1) == 1
        clock.later += 2 * QUICK.slow_after
        assert acquire(slots, held, "a", 3) == 1


def test_a_mail_server_is_no_longer_slow_after_a_quick_message(clock: LaterClock) -> None:
    slots = ConcurrencySlots(QUICK)
    make_slow(clock, slots, "a")
    with slots.acquire("a") as free:
        assert free
    with ExitStack() as held:
        assert acquire(slots, held, "a", 6) == 4


def test_nobody_waits_for_a_slow_message() -> None:
    slots = ConcurrencySlots(ConcurrencyLimits(per_server=1, per_slow_server=1, max_wait=60, slow_after=0))
    with slots.acquire("a") as first:
        began = time.monotonic()
        with slots.acquire("a") as second:
            assert (first, second) == (True, False)
        assert time.monotonic() - began < 30


def test_a_slot_released_within_the_wait_is_taken() -> None:
    slots = ConcurrencySlots(replace(PATIENT, per_server=1))
    acquired = []

    def second() -> None:
        with slots.acquire("a") as free:
            acquired.append(free)

    thread = Thread(target=second)
    with slots.acquire("a"):
        thread.start()
        wait_for_waiters(slots, 1)
    thread.join(60)
    assert acquired == [True]


def test_threads_that_wait_long_are_served_in_order() -> None:
    slots = ConcurrencySlots(replace(PATIENT, per_server=1, priority_after=0))
    served = []

    def serve(name: str) -> None:
        with slots.acquire("a") as free:
            assert free
            served.append(name)

    threads = [Thread(target=serve, args=(name,)) for name in ("first", "second", "third")]
    with slots.acquire("a"):
        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_for_waiters(slots, number)
    serve("a newcomer")
    assert served == ["first", "second", "third", "a newcomer"]
    for thread in threads:
        thread.join(60)


def test_waiting_for_one_mail_server_does_not_delay_another() -> None:
    slots = ConcurrencySlots(replace(PATIENT, per_server=1, total=2))
    with ExitStack() as later, ExitStack() as held:
        waiter = Thread(target=lambda: acquire(slots, later, "a", 1))
        assert acquire(slots, held, "a", 1)
        waiter.start()
        wait_for_waiters(slots, 1)
        assert acquire(slots, held, "b", 1)
        assert len(slots._waiters) == 1, "the other still waits"
        held.close()
        waiter.join(60)


def test_an_exclusive_slot() -> None:
    slots = ConcurrencySlots(QUICK)
    with (
        slots.acquire("test", exclusive=True) as first,
        slots.acquire("test", exclusive=True) as second,
        slots.acquire("other", exclusive=True) as other,
    ):
        assert (first, second, other) == (True, False, True)
    with slots.acquire("test", exclusive=True) as again:
        assert again


def test_no_exclusive_slot_without_a_free_slot() -> None:
    slots = ConcurrencySlots(ConcurrencyLimits(total=1))
    with slots.acquire("a"), slots.acquire("test", exclusive=True) as free:
        assert not free


def test_a_single_slot_serves_a_slow_server_too() -> None:
    slots = ConcurrencySlots(ConcurrencyLimits(total=1, max_wait=0, slow_after=0))
    for _ in range(2):
        with slots.acquire("a") as free:
            assert free
