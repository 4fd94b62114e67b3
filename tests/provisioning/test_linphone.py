"""Linphone's provisioning document, read as Linphone reads it."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from portal.provisioning.linphone import NAMESPACE, provisioning_document
from tests.provisioning.example_account import sip_account

NAMES = {"l": NAMESPACE}


def read(xml: bytes) -> dict[str, dict[str, str | None]]:
    """Return the entries by section."""
    return {
        section.attrib["name"]: {entry.attrib["name"]: entry.text for entry in section.findall("l:entry", NAMES)}
        for section in ET.fromstring(xml).findall("l:section", NAMES)
    }


def test_the_complete_document() -> None:
    made = sip_account(login_ip="203.0.113.5", tls_port=5061, transport="tls", display_name="Ann Lee")
    assert read(provisioning_document(made)) == {
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


def test_another_realm() -> None:
    authentication = read(provisioning_document(sip_account(realm="asterisk")))["auth_info_0"]
    assert (authentication["realm"], authentication["domain"]) == ("asterisk", "acme.example")


def test_the_document_has_the_format_of_lpconfig() -> None:
    xml = provisioning_document(sip_account())
    assert xml.startswith(b"<?xml version='1.0' encoding='UTF-8'?>")
    root = ET.fromstring(xml)
    assert root.tag == f"{{{NAMESPACE}}}config"
    assert b"<config xmlns=" in xml, "Linphone compares names without a prefix"
    entries = root.findall(".//l:entry", NAMES)
    assert entries
    assert all(entry.get("overwrite") == "true" for entry in entries)


def test_without_a_password_there_is_no_authentication_section() -> None:
    assert "auth_info_0" not in read(provisioning_document(sip_account(password=None)))


def test_without_a_port_the_transports_default_applies() -> None:
    assert read(provisioning_document(sip_account()))["proxy_0"]["reg_proxy"] == "<sip:acme.example;transport=udp>"


def test_ipv6_addresses_are_in_brackets() -> None:
    account = read(provisioning_document(sip_account(sip_domain="2001:db8::1", login_ip="2001:DB8::2", udp_port=5060)))[
        "proxy_0"
    ]
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
def test_display_names_are_quoted(name: str | None, quoted: str) -> None:
    assert read(provisioning_document(sip_account(display_name=name)))["proxy_0"]["reg_identity"] == quoted


def test_usernames_are_escaped() -> None:
    sections = read(provisioning_document(replace(sip_account(), username="1001@evil.example>;x=<")))
    assert sections["proxy_0"]["reg_identity"] == "sip:1001%40evil.example%3E;x=%3C@acme.example"
    assert sections["auth_info_0"]["username"] == "1001@evil.example>;x=<"
