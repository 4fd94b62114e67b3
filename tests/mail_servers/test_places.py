"""Places: slow mail servers leave enough of them, however many there are."""

import time
from contextlib import ExitStack
from threading import Thread

from portal.mail_servers.places import PlaceLimits, Places

QUICK = PlaceLimits(each=4, in_all=12, moment=0.02, slow=0.05)


def taken(places: Places, held: ExitStack, key: str, wanted: int) -> int:
    """Take as many places as the key gets of those that it wants, and hold them."""
    return sum(held.enter_context(places.take(key)) for _ in range(wanted))


def be_slow(places: Places, *keys: str) -> None:
    """Have a mail of each take long."""
    with ExitStack() as held:
        for key in keys:
            assert taken(places, held, key, 1)
        time.sleep(QUICK.slow)


def test_a_mail_server_gets_its_places_and_no_more() -> None:
    places = Places(QUICK)
    with ExitStack() as held:
        assert taken(places, held, "a", 6) == 4
    with ExitStack() as held:
        assert taken(places, held, "a", 6) == 4, "they were given back"


def test_of_many_at_once_each_leaves_some() -> None:
    with ExitStack() as held:
        places = Places(QUICK)
        assert [taken(places, held, key, 6) for key in "abcde"] == [4, 4, 2, 1, 1]


def test_slow_ones_share_half_of_the_places() -> None:
    places = Places(QUICK)
    be_slow(places, *"abcdefgh")
    with ExitStack() as held:
        assert [taken(places, held, key, 6) for key in "abcdefgh"] == [2, 2, 2, 0, 0, 0, 0, 0]
        assert taken(places, held, "healthy", 6) == 3


def test_one_that_has_been_silent_for_a_while_is_slow_before_its_mail_ends() -> None:
    places = Places(QUICK)
    with ExitStack() as held:
        assert taken(places, held, "a", 1) == 1
        time.sleep(QUICK.slow)
        assert taken(places, held, "a", 3) == 1


def test_it_is_not_slow_any_more_after_a_quick_mail() -> None:
    places = Places(QUICK)
    be_slow(places, "a")
    with places.take("a") as free:
        assert free
    with ExitStack() as held:
        assert taken(places, held, "a", 6) == 4


def test_nobody_waits_behind_a_slow_mail() -> None:
    places = Places(PlaceLimits(each=1, each_slow=1, moment=5, slow=0))
    with places.take("a") as first:
        began = time.monotonic()
        with places.take("a") as second:
            assert (first, second) == (True, False)
        assert time.monotonic() - began < 1


def test_a_place_that_is_given_back_within_the_moment_is_taken() -> None:
    places = Places(PlaceLimits(each=1, moment=5))
    got = []

    def second() -> None:
        with places.take("a") as free:
            got.append(free)

    thread = Thread(target=second)
    with places.take("a"):
        thread.start()
        time.sleep(0.02)
    thread.join(2)
    assert got == [True]


def test_who_has_lost_their_patience_is_served_in_turn() -> None:
    places = Places(PlaceLimits(each=1, moment=5, patience=0.01))
    served = []

    def serve(name: str) -> None:
        with places.take("a") as free:
            assert free
            served.append(name)

    threads = [Thread(target=serve, args=(name,)) for name in ("first", "second", "third")]
    with places.take("a"):
        for thread in threads:
            thread.start()
            time.sleep(0.02)
    serve("who has just come")
    assert served == ["first", "second", "third", "who has just come"]
    for thread in threads:
        thread.join(2)


def test_who_waits_for_another_mail_server_keeps_nobody_up() -> None:
    places = Places(PlaceLimits(each=1, in_all=2, moment=5))
    with ExitStack() as later, ExitStack() as held:
        waits = Thread(target=lambda: taken(places, later, "a", 1))
        assert taken(places, held, "a", 1)
        waits.start()
        time.sleep(0.02)
        began = time.monotonic()
        assert taken(places, held, "b", 1)
        assert time.monotonic() - began < 1
        held.close()
        waits.join(2)


def test_the_only_one_of_its_kind() -> None:
    places = Places(QUICK)
    with places.take_only("test") as first, places.take_only("test") as second, places.take_only("other") as other:
        assert (first, second, other) == (True, False, True)
    with places.take_only("test") as again:
        assert again


def test_no_place_is_left_for_the_only_one() -> None:
    places = Places(PlaceLimits(in_all=1))
    with places.take("a"), places.take_only("test") as free:
        assert not free


def test_a_single_place_serves_a_slow_server_too() -> None:
    places = Places(PlaceLimits(in_all=1, moment=0, slow=0))
    for _ in range(2):
        with places.take("a") as free:
            assert free
