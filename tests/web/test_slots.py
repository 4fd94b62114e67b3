"""Work of which a process does only a little at a time: who gets a slot, who waits, and who is rejected."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Event, Thread

import pytest
from flask import Flask

from portal.extensions import db
from portal.web.slots import Bound, Busy, Slots
from tests.processes import wait_for
from tests.sql import sql

ANN, BOB, CAT = 1, 2, 3


def is_admitted(slots: Slots, account_id: int | None) -> bool:
    try:
        with slots.hold(account_id):
            return True
    except Busy:
        return False


@contextmanager
def waiting(app: Flask, slots: Slots, *accounts: int) -> Iterator[Sequence[bool]]:
    """Let these accounts wait for a slot during the block, one after the other. Yields whether they got one."""
    admitted: list[bool] = []

    def wait(account_id: int) -> None:
        with app.app_context():
            admitted.append(is_admitted(slots, account_id))

    threads = [Thread(target=wait, args=[account_id]) for account_id in accounts]
    for number, thread in enumerate(threads, 1):
        thread.start()
        wait_for(lambda number=number: slots._waiting.total() + len(admitted) == number)  # type: ignore[misc]
    yield admitted
    for thread in threads:
        thread.join()


def test_an_account_has_few_slots_and_all_together_have_few(context: Flask) -> None:
    slots = Slots(Bound(per_account=2, total=3))
    with ExitStack() as held:
        held.enter_context(slots.hold(ANN))
        held.enter_context(slots.hold(ANN))
        assert not is_admitted(slots, ANN)
        held.enter_context(slots.hold(BOB))
        assert not is_admitted(slots, CAT)
    assert is_admitted(slots, ANN)
    assert not slots._running


def test_strangers_share_their_slots(context: Flask) -> None:
    slots = Slots(Bound(per_account=1, total=2))
    with slots.hold():
        assert not is_admitted(slots, None)
        assert is_admitted(slots, ANN)


def test_one_that_waits_gets_the_slot_that_becomes_free(app: Flask, context: Flask) -> None:
    slots = Slots(Bound(1, 1), waiting=Bound(1, 2), max_wait=20)
    with ExitStack() as held:
        held.enter_context(slots.hold(ANN))
        with waiting(app, slots, ANN, BOB) as admitted:
            held.close()
    assert admitted == [True, True]
    assert not slots._waiting


def test_only_few_wait(app: Flask, context: Flask) -> None:
    slots = Slots(Bound(1, 1), waiting=Bound(per_account=1, total=2), max_wait=60)
    with ExitStack() as held:
        held.enter_context(slots.hold(ANN))
        with waiting(app, slots, ANN, BOB):
            began = time.monotonic()
            assert not is_admitted(slots, ANN), "one of an account"
            assert not is_admitted(slots, CAT), "two in all"
            assert time.monotonic() - began < 30
            held.close()


def test_nobody_waits_longer_than_allowed(app: Flask, context: Flask) -> None:
    slots = Slots(Bound(1, 1), waiting=Bound(1, 1), max_wait=0.1)
    with slots.hold(ANN), waiting(app, slots, BOB) as admitted:
        wait_for(lambda: admitted == [False])
    assert is_admitted(slots, BOB)


def test_one_that_waits_holds_no_connection(app: Flask, context: Flask) -> None:
    slots, has_read, end = Slots(Bound(1, 1), waiting=Bound(1, 1), max_wait=20), Event(), Event()

    def read_and_wait() -> None:
        with app.app_context():
            sql("SELECT 1")
            has_read.set()
            with slots.hold(BOB):
                end.wait(60)

    before = db.engine.pool.checkedout()  # type: ignore[attr-defined]
    with slots.hold(ANN):
        thread = Thread(target=read_and_wait)
        thread.start()
        assert has_read.wait(60)
        wait_for(lambda: slots._waiting.total() == 1)
        assert db.engine.pool.checkedout() == before  # type: ignore[attr-defined]
    end.set()
    thread.join()


def test_an_error_gives_the_slot_back(context: Flask) -> None:
    slots = Slots(Bound(1, 1))
    with pytest.raises(ZeroDivisionError), slots.hold(ANN):
        raise ZeroDivisionError
    assert is_admitted(slots, ANN)
