"""Linphone's document, read as Linphone reads it: sections of entries."""

import xml.etree.ElementTree as ET

import pytest

from portal.provisioning.lines import Line
from portal.provisioning.linphone import NAMESPACE, document

NAMES = {"l": NAMESPACE}


def read(xml: bytes) -> dict[str, dict[str, str | None]]:
    """Return the entries by section."""
    return {
        section.attrib["name"]: {entry.attrib["name"]: entry.text for entry in section.findall("l:entry", NAMES)}
        for section in ET.fromstring(xml).findall("l:section", NAMES)
    }


def line(**said: object) -> Line:
    """Return a line with these values in place of the usual ones."""
    usual = {"username": "1001", "sip_domain": "acme.example", "password": "open sesame"}
    return Line.of(**usual | said)  # type: ignore[arg-type]


def test_the_whole_document() -> None:
    made = line(login_ip="203.0.113.5", tls_port=5061, transport="tls", display_name="Ann Lee")
    assert read(document(made)) == {
        "misc": {"transient_provisioning": "1"},
        "sip": {"default_proxy": "0"},
        "proxy_0": {
            "reg_identity": '"Ann Lee" <sip:1001@acme.example>',
            "reg_proxy": "<sip:203.0.113.5:5061;transport=tls>",
            "reg_route": "<sip:203.0.113.5:5061;transport=tls>",
            "reg_sendregister": "1",
        },
        "auth_info_0": {
            "username": "1001",
            "domain": "acme.example",
            "realm": "acme.example",
            "ha1": made.ha1,
            "algorithm": "MD5",
        },
    }


def test_its_form_is_that_of_lpconfig() -> None:
    xml = document(line())
    assert xml.startswith(b"<?xml version='1.0' encoding='UTF-8'?>")
    root = ET.fromstring(xml)
    assert root.tag == f"{{{NAMESPACE}}}config"
    assert b"<config xmlns=" in xml, "Linphone compares names without a prefix"
    entries = root.findall(".//l:entry", NAMES)
    assert entries
    assert all(entry.get("overwrite") == "true" for entry in entries)


def test_linphone_asks_for_a_password_that_is_not_there() -> None:
    assert "auth_info_0" not in read(document(line(password=None)))


def test_no_port_leaves_it_to_the_transport() -> None:
    assert read(document(line()))["proxy_0"]["reg_proxy"] == "<sip:acme.example;transport=udp>"


def test_ipv6_stands_in_brackets() -> None:
    account = read(document(line(sip_domain="2001:db8::1", login_ip="2001:DB8::2", udp_port=5060)))["proxy_0"]
    assert account["reg_proxy"] == "<sip:[2001:db8::2]:5060;transport=udp>"
    assert account["reg_identity"] == "sip:1001@[2001:db8::1]"


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ('Ann "the <boss>" & Lee', r'"Ann \"the <boss>\" & Lee" <sip:1001@acme.example>'),
        ("back\\slash", r'"back\\slash" <sip:1001@acme.example>'),
        ("Zoë 李", '"Zoë 李" <sip:1001@acme.example>'),
        (']]><entry name="x">', r'"]]><entry name=\"x\">" <sip:1001@acme.example>'),
        (None, "sip:1001@acme.example"),
    ],
)
def test_a_display_name_stays_a_name(name: str | None, quoted: str) -> None:
    assert read(document(line(display_name=name)))["proxy_0"]["reg_identity"] == quoted


def test_a_username_cannot_reach_into_the_address() -> None:
    sections = read(document(line(username="1001@evil.example>;x=<")))
    assert sections["proxy_0"]["reg_identity"] == "sip:1001%40evil.example%3E;x=%3C@acme.example"
    assert sections["auth_info_0"]["username"] == "1001@evil.example>;x=<"
