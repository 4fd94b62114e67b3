"""Sends what is due, as a worker does, in the test's own process."""

from portal.deliveries import release, retry


def send_due_emails() -> int:
    """Release what was requested, send what is due, and return the number of emails."""
    release.release_requested()
    retry._busy_until.clear()  # of another test's tenant with the same id
    return sum(_send_all(tenant_id) for tenant_id in retry.tenants_with_due())


def _send_all(tenant_id: int) -> int:
    count = 0
    while retry.retry_next(tenant_id):
        count += 1
    return count
