"""The tenant scope: what a session sees and writes, and that forgetting it shows nothing."""

import pytest
from flask import Flask
from sqlalchemy import delete, func, select, update

from portal.accounts.models import Membership
from portal.database.scope import RowOutsideScope, TenantOwned, enter_scope, every_tenant
from portal.extensions import Base, db
from portal.notifications.models import Recipient
from portal.tenants import service as tenant_service
from portal.tenants.models import SettingsRevision, Tenant


@pytest.fixture
def two(context: Flask) -> tuple[int, int]:
    """Two tenants, each with a recipient."""
    ids = []
    for name in ("one", "two"):
        tenant = tenant_service.add(name, f"{name}.example", "UTC")
        assert isinstance(tenant, Tenant)
        with every_tenant():
            db.session.add(Recipient(tenant_id=tenant.id, email=f"ops@{name}.example"))
            db.session.commit()
        ids.append(tenant.id)
    db.session.remove()
    return ids[0], ids[1]


def addresses() -> list[str]:
    return list(db.session.scalars(select(Recipient.email).order_by(Recipient.id)))


def test_a_scope_shows_its_tenants_rows_only(two: tuple[int, int]) -> None:
    enter_scope(two[0])
    assert addresses() == ["ops@one.example"]
    enter_scope(two[1])
    assert addresses() == ["ops@two.example"]


def test_with_the_scope_forgotten_nothing_is_there(two: tuple[int, int]) -> None:
    assert addresses() == []
    assert db.session.scalar(select(func.count()).select_from(Recipient)) == 0


def test_every_tenant_shows_all_and_ends_with_its_block(two: tuple[int, int]) -> None:
    enter_scope(two[0])
    with every_tenant():
        assert len(addresses()) == 2
    assert addresses() == ["ops@one.example"]


def test_an_update_and_a_delete_stay_in_their_scope(two: tuple[int, int]) -> None:
    enter_scope(two[0])
    db.session.execute(update(Recipient).values(email="changed@example"))
    db.session.execute(delete(Recipient))
    db.session.commit()
    with every_tenant():
        assert addresses() == ["ops@two.example"]


def test_a_new_row_belongs_to_the_scope(two: tuple[int, int]) -> None:
    enter_scope(two[1])
    db.session.add(Recipient(email="new@two.example"))
    db.session.commit()
    assert addresses() == ["ops@two.example", "new@two.example"]


def test_a_row_of_another_tenant_is_not_written(two: tuple[int, int]) -> None:
    enter_scope(two[1])
    db.session.add(Recipient(tenant_id=two[0], email="intruder@two.example"))
    with pytest.raises(RowOutsideScope):
        db.session.commit()


def test_every_table_with_a_tenant_is_scoped(context: Flask) -> None:
    # Memberships decide who enters a tenant, so they are read before one is entered. Revisions are only numbers, of
    # which a tenant's and the system's are read together.
    for mapper in Base.registry.mappers:
        if "tenant_id" in mapper.columns and mapper.class_ not in {Membership, SettingsRevision}:
            assert issubclass(mapper.class_, TenantOwned), mapper.class_
