"""Which mail server sends a tenant's email."""

import pytest
from flask import Flask

from portal.errors import Refusal
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.service import effective_server, shared_server
from portal.tenants import service as tenant_service
from tests.tenant_fixtures import entered

SYSTEM, ACME, GLOBEX = 1025, 2025, 3025  # ports


@pytest.fixture
def owners(context: Flask) -> tuple[int, int]:
    tenants = [tenant_service.add(name, f"{name}.example", "UTC") for name in ("acme", "globex")]
    acme, globex = (each.id for each in tenants if not isinstance(each, Refusal))
    return acme, globex


def effective_port(owner: int) -> int | None:
    server = effective_server(owner)
    return server.port if server else None


def test_without_settings_there_is_none(owners: tuple[int, int]) -> None:
    assert effective_port(owners[0]) is None


def test_the_systems_applies_only_while_it_is_shared(owners: tuple[int, int]) -> None:
    mail_server_service.save(None, entered(SYSTEM))
    assert effective_port(owners[0]) is None
    assert shared_server() is None
    mail_server_service.share(True)
    assert effective_port(owners[0]) == SYSTEM
    mail_server_service.share(False)
    assert effective_port(owners[0]) is None


def test_the_tenants_own_takes_precedence_over_the_shared_one(owners: tuple[int, int]) -> None:
    acme, globex = owners
    mail_server_service.save(None, entered(SYSTEM))
    mail_server_service.share(True)
    mail_server_service.save(acme, entered(ACME))
    assert effective_port(acme) == ACME
    assert effective_port(globex) == SYSTEM


def test_the_shared_one_applies_after_the_own_one_is_removed(owners: tuple[int, int]) -> None:
    mail_server_service.save(None, entered(SYSTEM))
    mail_server_service.share(True)
    mail_server_service.save(owners[0], entered(ACME))
    mail_server_service.remove(owners[0])
    assert effective_port(owners[0]) == SYSTEM


def test_another_tenants_never_applies(owners: tuple[int, int]) -> None:
    acme, globex = owners
    mail_server_service.save(globex, entered(GLOBEX))
    assert effective_port(acme) is None
    assert effective_port(globex) == GLOBEX
