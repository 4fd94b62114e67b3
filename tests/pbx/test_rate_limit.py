"""How many events a tenant may post."""

import time

from portal.pbx.rate_limit import InMemoryRateLimit


def test_a_tenant_waits_after_its_share_and_others_do_not() -> None:
    limit = InMemoryRateLimit("2 per minute")
    assert [limit.seconds_to_wait(1), limit.seconds_to_wait(1), limit.seconds_to_wait(2)] == [0, 0, 0]
    assert 0 < limit.seconds_to_wait(1) <= 60


def test_a_system_key_counts_for_the_tenant_and_for_the_system() -> None:
    limit = InMemoryRateLimit("3 per minute")
    assert [limit.seconds_to_wait(None, tenant) for tenant in (1, 2, 2)] == [0, 0, 0]
    assert limit.seconds_to_wait(None, 3) > 0
    assert limit.seconds_to_wait(1) == 0


def test_each_period_starts_at_zero() -> None:
    limit = InMemoryRateLimit("1 per second")
    assert limit.seconds_to_wait(1) == 0
    time.sleep(limit.seconds_to_wait(1) + 0.01)
    assert limit.seconds_to_wait(1) == 0
