"""Linphone's remote provisioning document."""

import ipaddress
import re
import xml.etree.ElementTree as ET
from urllib.parse import quote

from werkzeug.datastructures import Headers

from portal.provisioning.sip_account import SipAccount

REQUEST_HEADER = "X-Linphone-Provisioning"  # sent since liblinphone 5.3, by no other program
OLDER_USER_AGENT = re.compile(r"unknown|linphone\w*(/.*)?", re.IGNORECASE)  # of liblinphone before 5.3
MEDIA_TYPE = "application/xml"
URI_SCHEME = "linphone-config:"  # before a URL: opens it in Linphone
APPS = {  # where to install it from
    "Google Play": "https://play.google.com/store/apps/details?id=org.linphone",
    "App Store": "https://apps.apple.com/app/linphone/id360065638",
    "linphone.org": "https://www.linphone.org",
}
NAMESPACE = "http://www.linphone.org/xsds/lpconfig.xsd"

ET.register_namespace("", NAMESPACE)

# Allowed unescaped in the user part of a SIP URI (RFC 3261, section 25.1).
_SIP_USER_CHARACTERS = "-_.!~*'()&=+$,;?/"


def asks_for_document(headers: Headers) -> bool:
    """Return whether a request with these headers is Linphone's, and neither a browser's nor a link scanner's.

    Linphone's older versions send no header of their own. Unlike browsers and link scanners they send no Accept.
    """
    if REQUEST_HEADER in headers:
        return True
    return "Accept" not in headers and bool(OLDER_USER_AGENT.fullmatch(headers.get("User-Agent", "")))


def provisioning_document(account: SipAccount) -> bytes:
    """Return the XML that makes this Linphone's first account and registers it.

    Without a password there is no authentication section: Linphone then asks for the password.
    """
    port = f":{account.port}" if account.port else ""
    server = f"<sip:{_host(account.registrar)}{port};transport={account.transport}>"
    sections = {
        "misc": {"transient_provisioning": "1"},  # do not fetch it again at each start
        "sip": {"default_proxy": "0"},
        "proxy_0": {
            "reg_identity": _name_address(account),
            "reg_proxy": server,
            "reg_route": server,  # also for calls, because a tenant's SIP domain need not be in the DNS
            "reg_sendregister": "1",
        },
    }
    if account.ha1 is not None:
        sections["auth_info_0"] = {
            "username": account.username,
            "domain": account.sip_domain,
            "realm": account.realm,
            "ha1": account.ha1,
            "algorithm": "MD5",
        }
    config = ET.Element(f"{{{NAMESPACE}}}config")
    for name, entries in sections.items():
        section = ET.SubElement(config, f"{{{NAMESPACE}}}section", name=name)
        for key, value in entries.items():
            # Without `overwrite` Linphone keeps existing values and mixes two accounts.
            ET.SubElement(section, f"{{{NAMESPACE}}}entry", name=key, overwrite="true").text = value
    document: bytes = ET.tostring(config, encoding="UTF-8", xml_declaration=True)
    return document


def _name_address(account: SipAccount) -> str:
    uri = f"sip:{quote(account.username, safe=_SIP_USER_CHARACTERS)}@{_host(account.sip_domain)}"
    if not account.display_name:
        return uri
    quoted = account.display_name.replace("\\", r"\\").replace('"', r"\"")  # RFC 3261, section 25.1, quoted-string
    return f'"{quoted}" <{uri}>'


def _host(text: str) -> str:
    try:
        return f"[{ipaddress.IPv6Address(text)}]"
    except ipaddress.AddressValueError:
        return text
