"""The tenants with the worst problems. A worker finds them every minute, so that no page has to look at all tenants."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from portal.extensions import db
from portal.overview import alerts, tenant_list
from portal.overview.models import WorstTenants
from portal.overview.tenant_list import ListedTenant
from portal.signals import alerts_due

VALID_FOR: Final = timedelta(minutes=3)  # if no worker has found them since, the page does


class Worst(NamedTuple):
    """The tenants to show, as they are now, and how many more have problems."""

    tenants: Sequence[ListedTenant]
    more: int


def init_app() -> None:
    """Find them whenever a worker looks for alerts."""
    alerts_due.connect(store)


def store(_sender: object = None) -> None:
    """Find the tenants with the worst problems and store them."""
    ids, count = tenant_list.find_worst(alerts.MAX_TENANTS_SHOWN)
    found = {"found_at": func.now(), "tenant_ids": ids, "count": count}
    statement = insert(WorstTenants).values(id=1, **found)
    db.session.execute(statement.on_conflict_do_update(constraint="pk_worst_tenants", set_=found))
    db.session.commit()


def worst() -> Worst:
    """Return the tenants with the worst problems, without those whose problems are over."""
    is_valid = (WorstTenants.id == 1, WorstTenants.found_at > func.now() - VALID_FOR)
    stored = db.session.scalar(select(WorstTenants).where(*is_valid))
    ids, count = (stored.tenant_ids, stored.count) if stored else tenant_list.find_worst(alerts.MAX_TENANTS_SHOWN)
    tenants = [tenant for tenant in tenant_list.load(ids) if tenant.problems]
    return Worst(tenants, count - len(ids))
