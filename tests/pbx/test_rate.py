"""The rate of events that a key may post."""

import time

from portal.pbx.rate import Rate


def test_a_key_waits_when_it_has_posted_its_share_and_others_do_not() -> None:
    rate = Rate("2 per minute")
    assert [rate.wait(1), rate.wait(1), rate.wait(2)] == [0, 0, 0]
    assert 0 < rate.wait(1) <= 60


def test_it_begins_anew_with_each_period() -> None:
    rate = Rate("1 per second")
    assert rate.wait(1) == 0
    time.sleep(rate.wait(1) + 0.01)
    assert rate.wait(1) == 0
