"""What states add up to, and when a mail is tried again."""

from datetime import UTC, datetime, timedelta

import pytest

from portal.deliveries.schedule import RETRY_DELAYS, next_attempt_time
from portal.deliveries.status import Status, combine

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
    assert combine(parts) is whole
    assert combine(parts[::-1]) is whole


def test_retries_come_as_delivery_says_each_spread_by_a_fifth() -> None:
    now = datetime.now(UTC)
    assert [wait.total_seconds() / 60 for wait in RETRY_DELAYS] == [1, 5, 15, 60, 240, 720, 1440]
    for attempts, wait in enumerate(RETRY_DELAYS, start=1):
        waits = [next_attempt_time(attempts, now) - now for _ in range(200)]
        assert min(waits) >= 0.8 * wait
        assert max(waits) <= 1.2 * wait
        assert max(waits) - min(waits) > 0.1 * wait
    assert next_attempt_time(99, now) - now <= 1.2 * timedelta(hours=24)
