"""Which mail server a tenant's mail goes through."""

import pytest
from flask import Flask

from portal.errors import Refusal
from portal.mail_servers import settings
from portal.mail_servers.selection import in_force, shared
from portal.tenants import directory
from tests.ready import entered

SYSTEM, ACME, GLOBEX = 1025, 2025, 3025  # their ports


@pytest.fixture
def owners(context: Flask) -> tuple[int, int]:
    tenants = [directory.add(name, f"{name}.example", "UTC") for name in ("acme", "globex")]
    acme, globex = (each.id for each in tenants if not isinstance(each, Refusal))
    return acme, globex


def port(owner: int) -> int | None:
    server = in_force(owner)
    return server.port if server else None


def test_none_where_nothing_is_set(owners: tuple[int, int]) -> None:
    assert port(owners[0]) is None


def test_the_systems_only_while_it_is_shared(owners: tuple[int, int]) -> None:
    settings.save(None, entered(SYSTEM))
    assert port(owners[0]) is None
    assert shared() is None
    settings.share(True)
    assert port(owners[0]) == SYSTEM
    settings.share(False)
    assert port(owners[0]) is None


def test_the_own_one_wins_while_another_is_shared(owners: tuple[int, int]) -> None:
    acme, globex = owners
    settings.save(None, entered(SYSTEM))
    settings.share(True)
    settings.save(acme, entered(ACME))
    assert port(acme) == ACME
    assert port(globex) == SYSTEM


def test_a_removed_own_one_gives_way_to_the_shared_one(owners: tuple[int, int]) -> None:
    settings.save(None, entered(SYSTEM))
    settings.share(True)
    settings.save(owners[0], entered(ACME))
    settings.remove(owners[0])
    assert port(owners[0]) == SYSTEM


def test_never_another_tenants(owners: tuple[int, int]) -> None:
    acme, globex = owners
    settings.save(globex, entered(GLOBEX))
    assert port(acme) is None
    assert port(globex) == GLOBEX
