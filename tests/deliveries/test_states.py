"""What states add up to, and when a mail is tried again."""

from datetime import UTC, datetime, timedelta

import pytest

from portal.deliveries.schedule import RETRY_AFTER, next_attempt
from portal.deliveries.states import Status, sum_up

S = Status


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([S.SENT], S.SENT),
        ([S.SENT, S.SENT], S.SENT),
        ([S.SENT, S.FAILED], S.PARTIAL),
        ([S.SENT, S.DEFERRED], S.PARTIAL),
        ([S.SENT, S.HELD], S.PARTIAL),
        ([S.PARTIAL, S.FAILED], S.PARTIAL),
        ([S.DEFERRED, S.FAILED], S.DEFERRED),
        ([S.DEFERRED, S.HELD], S.DEFERRED),
        ([S.HELD, S.FAILED], S.HELD),
        ([S.PENDING, S.DEFERRED], S.PENDING),
        ([S.FAILED, S.FAILED], S.FAILED),
    ],
)
def test_parts_add_up(parts: list[Status], whole: Status) -> None:
    assert sum_up(parts) is whole
    assert sum_up(parts[::-1]) is whole


def test_retries_come_as_delivery_says_each_spread_by_a_fifth() -> None:
    now = datetime.now(UTC)
    assert [wait.total_seconds() / 60 for wait in RETRY_AFTER] == [1, 5, 15, 60, 240, 720, 1440]
    for attempts, wait in enumerate(RETRY_AFTER, start=1):
        waits = [next_attempt(attempts, now) - now for _ in range(200)]
        assert min(waits) >= 0.8 * wait
        assert max(waits) <= 1.2 * wait
        assert max(waits) - min(waits) > 0.1 * wait
    assert next_attempt(99, now) - now <= 1.2 * timedelta(hours=24)
