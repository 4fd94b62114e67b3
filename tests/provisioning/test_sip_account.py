"""The SIP account that a PBX reports for a new user."""

import hashlib
import json
from typing import Any

import pytest

from portal.events.types import UserCreated
from portal.provisioning.sip_account import SipAccount, SipTransport, sip_digest
from tests.provisioning.example_account import sip_account


def test_digest_is_the_example_of_rfc_2617_section_3_5() -> None:
    assert sip_digest("Mufasa", "testrealm@host.com", "Circle Of Life") == "939e7578ed9e3c518a452acee763bce9"


def test_ha1_depends_on_username_domain_and_password() -> None:
    line = sip_account(password="pässword")
    assert line.ha1 == hashlib.md5("1001:acme.example:pässword".encode()).hexdigest()


def test_ha1_belongs_to_the_realm() -> None:
    account = sip_account(realm="asterisk", password="open sesame")
    assert account.ha1 == hashlib.md5(b"1001:asterisk:open sesame").hexdigest()
    assert (account.realm, account.sip_domain, account.registrar) == ("asterisk", "acme.example", "acme.example")
    assert sip_account(password=None).realm == "acme.example"


def test_the_tenants_realm_applies_unless_the_pbx_names_another() -> None:
    user = UserCreated(extension_number="1001", extension_password="open sesame")
    assert SipAccount.of(user, "acme.example", "asterisk").realm == "asterisk"
    assert SipAccount.of(user.model_copy(update={"realm": "own"}), "acme.example", "asterisk").realm == "own"


def test_an_account_that_was_stored_before_there_was_a_realm() -> None:
    values = json.loads(sip_account(password="x").to_json())
    del values["realm"]
    assert SipAccount.from_json(json.dumps(values)).realm == "acme.example"


def test_without_a_password_there_is_no_ha1() -> None:
    assert sip_account(password=None).ha1 is None


def test_neither_password_nor_ha1_shows_in_a_traceback() -> None:
    line = sip_account(password="open sesame")
    assert line.ha1 is not None
    assert line.ha1 not in repr(line)
    assert "open sesame" not in repr(line)


def test_an_account_survives_as_json_without_its_password() -> None:
    line = sip_account(
        login_ip="203.0.113.5",
        tls_port=5061,
        transport="tls",
        display_name="Zoë “Z” Lee",
    )
    assert SipAccount.from_json(line.to_json()) == line
    assert isinstance(SipAccount.from_json(line.to_json()).transport, SipTransport)
    assert "open sesame" not in line.to_json()


def test_the_registrar_is_the_login_ip_or_else_the_domain() -> None:
    assert sip_account(login_ip="203.0.113.5").registrar == "203.0.113.5"
    assert sip_account(password=None).registrar == "acme.example"


@pytest.mark.parametrize(
    ("said", "transport", "port"),
    [
        ({}, "udp", None),
        ({"udp_port": 5060, "tcp_port": 5070, "tls_port": 5071}, "udp", 5060),
        ({"udp_port": 5060, "tls_port": 5071, "transport": "tls"}, "tls", 5071),
        ({"udp_port": 5060, "transport": "tcp"}, "tcp", None),
        ({"tls_port": 5071}, "tls", 5071),
    ],
)
def test_the_port_belongs_to_the_transport(said: dict[str, Any], transport: str, port: int | None) -> None:
    line = sip_account(**said)
    assert (line.transport, line.port) == (transport, port)
