"""What a softphone needs, from what a PBX says."""

import hashlib

import pytest

from portal.provisioning.lines import Line, Transport, digest


def test_digest_is_the_example_of_rfc_2617_section_3_5() -> None:
    assert digest("Mufasa", "testrealm@host.com", "Circle Of Life") == "939e7578ed9e3c518a452acee763bce9"


def test_ha1_is_made_of_username_domain_and_password() -> None:
    line = Line.of(username="1001", sip_domain="acme.example", password="pässword")
    assert line.ha1 == hashlib.md5("1001:acme.example:pässword".encode()).hexdigest()


def test_without_a_password_there_is_no_ha1() -> None:
    assert Line.of(username="1001", sip_domain="acme.example").ha1 is None
    assert Line.of(username="1001", sip_domain="acme.example", password="").ha1 is None


def test_neither_password_nor_ha1_shows_in_a_traceback() -> None:
    line = Line.of(username="1001", sip_domain="acme.example", password="open sesame")
    assert line.ha1 is not None
    assert line.ha1 not in repr(line)
    assert "open sesame" not in repr(line)


def test_a_line_survives_as_text_which_holds_no_password() -> None:
    line = Line.of(
        username="1001",
        sip_domain="acme.example",
        password="open sesame",
        login_ip="203.0.113.5",
        tls_port=5061,
        transport="tls",
        display_name="Zoë “Z” Lee",
    )
    assert Line.from_json(line.to_json()) == line
    assert isinstance(Line.from_json(line.to_json()).transport, Transport)
    assert "open sesame" not in line.to_json()


def test_it_registers_at_the_login_address_and_else_at_the_domain() -> None:
    assert Line.of(username="1001", sip_domain="acme.example", login_ip="203.0.113.5").registrar == "203.0.113.5"
    assert Line.of(username="1001", sip_domain="acme.example").registrar == "acme.example"


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
def test_the_port_is_the_transports(said: dict[str, object], transport: str, port: int | None) -> None:
    line = Line.of(username="1001", sip_domain="acme.example", **said)  # type: ignore[arg-type]
    assert (line.transport, line.port) == (transport, port)
