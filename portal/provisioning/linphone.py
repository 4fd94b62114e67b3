"""What Linphone fetches: its remote provisioning document."""

import ipaddress
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from urllib.parse import quote

from portal.provisioning.lines import Line

HEADER = "X-Linphone-Provisioning"  # on each fetch of a provisioning document, and on no other program's request
MEDIA_TYPE = "application/xml"
SCHEME = "linphone-config:"  # in front of an address, opens it in Linphone
NAMESPACE = "http://www.linphone.org/xsds/lpconfig.xsd"

ET.register_namespace("", NAMESPACE)

# What may stand in the user part of a SIP URI as it is (RFC 3261, section 25.1).
_USER = "-_.!~*'()&=+$,;?/"


def document(line: Line) -> bytes:
    """Return the XML that makes the line Linphone's first account, and registers it.

    Without a password there is no section about authentication: Linphone then asks for it.
    """
    sections = {
        "misc": {"transient_provisioning": "1"},  # fetched once, not again at each start
        "sip": {"default_proxy": "0"},
        "proxy_0": _account(line),
    }
    if line.ha1 is not None:
        sections["auth_info_0"] = _authentication(line, line.ha1)
    config = ET.Element(f"{{{NAMESPACE}}}config")
    for name, entries in sections.items():
        _add_section(config, name, entries)
    document: bytes = ET.tostring(config, encoding="UTF-8", xml_declaration=True)
    return document


def _account(line: Line) -> dict[str, str]:
    port = f":{line.port}" if line.port else ""
    server = f"<sip:{_host(line.registrar)}{port};transport={line.transport}>"
    return {
        "reg_identity": _name_and_address(line),
        "reg_proxy": server,
        # Calls go the same way as the registration: a tenant's SIP domain need not be in the DNS.
        "reg_route": server,
        "reg_sendregister": "1",
    }


def _authentication(line: Line, ha1: str) -> dict[str, str]:
    return {
        "username": line.username,
        "domain": line.sip_domain,
        "realm": line.sip_domain,
        "ha1": ha1,
        "algorithm": "MD5",
    }


def _name_and_address(line: Line) -> str:
    address = f"sip:{quote(line.username, safe=_USER)}@{_host(line.sip_domain)}"
    if not line.display_name:
        return address
    quoted = line.display_name.replace("\\", r"\\").replace('"', r"\"")  # RFC 3261, section 25.1, quoted-string
    return f'"{quoted}" <{address}>'


def _host(text: str) -> str:
    try:
        return f"[{ipaddress.IPv6Address(text)}]"
    except ipaddress.AddressValueError:
        return text


def _add_section(config: ET.Element, name: str, entries: Mapping[str, str]) -> None:
    section = ET.SubElement(config, f"{{{NAMESPACE}}}section", name=name)
    for key, value in entries.items():
        # Without `overwrite` Linphone keeps what it has, and would mix two accounts.
        ET.SubElement(section, f"{{{NAMESPACE}}}entry", name=key, overwrite="true").text = value
