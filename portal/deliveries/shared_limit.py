"""How many emails a tenant may send through the system's shared mail server, in an hour and in a day.

Without a limit, a tenant's PBX could use the operator's mail server to send email to any number of strangers.
"""

from collections.abc import Sequence
from typing import Any, Final

from portal import config
from portal.database import fast_sql
from portal.deliveries.attempt import found_no_slot
from portal.deliveries.models import PendingDelivery
from portal.deliveries.status import HoldReason

UNLIMITED: Final = 2**31 - 1
# Counts the recipients of an email. It is over the limit if the limit was reached before, so that an email to many
# recipients fits too. What the hour's limit holds does not count for the day: it is sent later.
COUNT: Final = """
    INSERT INTO shared_server_usage AS usage (tenant_id, hour_started_at, hour_count, day_started_at, day_count)
    SELECT %(tenant_id)s::int, now(), %(shared_emails)s::int, now(), %(shared_emails)s::int
    FROM {rows} WHERE %(shared_emails)s::int > 0
    ON CONFLICT ON CONSTRAINT pk_shared_server_usage DO UPDATE SET
        (hour_started_at, hour_count, day_started_at, day_count) = (
            SELECT CASE WHEN hour_ended THEN now() ELSE usage.hour_started_at END,
                hour + excluded.hour_count,
                CASE WHEN day_ended THEN now() ELSE usage.day_started_at END,
                day + CASE WHEN hour >= %(hourly_limit)s::int THEN 0 ELSE excluded.day_count END
            FROM (
                SELECT usage.hour_started_at <= now() - interval '1 hour',
                    usage.day_started_at <= now() - interval '1 day'
            ) AS state (hour_ended, day_ended), LATERAL (
                SELECT CASE WHEN hour_ended THEN 0 ELSE usage.hour_count END,
                    CASE WHEN day_ended THEN 0 ELSE usage.day_count END
            ) AS counted (hour, day)
        )
    RETURNING hour_count - %(shared_emails)s::int >= %(hourly_limit)s::int
        OR day_count - %(shared_emails)s::int >= %(daily_limit)s::int AS is_over
"""
COUNT_ALONE: Final = COUNT.format(rows="(SELECT) AS one")


def limits() -> tuple[int, int]:
    """Return the limits of a tenant in an hour and in a day."""
    settings = config.current()
    return settings.shared_server_hourly_limit or UNLIMITED, settings.shared_server_daily_limit or UNLIMITED


def count_values(tenant_id: int, deliveries: Sequence[PendingDelivery]) -> dict[str, Any]:
    """Return the values of the placeholders in `COUNT`: those emails count that are leased for the shared server."""
    hourly, daily = limits()
    leased = [delivery for delivery in deliveries if delivery.lease_until and delivery.uses_shared_server]
    emails = sum(len(delivery.unfinished) for delivery in leased)
    return {"tenant_id": tenant_id, "shared_emails": emails, "hourly_limit": hourly, "daily_limit": daily}


def hold_if_over(tenant_id: int, delivery: PendingDelivery) -> bool:
    """Count the first attempt of a recorded email, and return whether the email is held because of a limit.

    One that found no free slot was counted, although that was no attempt.
    """
    values = count_values(tenant_id, [delivery])
    if not values["shared_emails"] or delivery.attempts > 1 or found_no_slot(delivery.recipients):
        return False
    row = fast_sql.run(COUNT_ALONE, values, scope=str(tenant_id))
    if row is None or not row["is_over"]:
        return False
    delivery.hold(HoldReason.SHARED_SERVER_LIMIT)
    delivery.attempts -= 1
    return True
