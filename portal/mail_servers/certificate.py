"""What a mail server's certificate says, in words for a person."""

import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from babel.dates import format_date
from flask_babel import gettext

from portal.languages import to_translate
from portal.ui import readers_locale

ENDS_SOON: Final = timedelta(days=14)  # who renews by himself has done so by then
SHOWN: Final = 3  # names


def facts(certificate: Mapping[str, Any], host: str) -> tuple[str, ...]:
    """Return what a verified certificate (as `getpeercert` has it) says: for whom, by whom and until when."""
    ends = format_date(_ends(certificate), "long", locale=readers_locale())
    issued = gettext("Issued by %(issuer)s, ends on %(day)s", issuer=_issuer(certificate), day=ends)
    return _for_whom(certificate, host), issued


def _for_whom(certificate: Mapping[str, Any], host: str) -> str:
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}]
    told, more = ", ".join(names[:SHOWN]), len(names) - SHOWN
    if more > 0:
        sentence = to_translate("Certificate for %(names)s and %(count)s more, verified for %(host)s")
    else:
        sentence = to_translate("Certificate for %(names)s, verified for %(host)s")
    return str(gettext(sentence, names=told, count=more, host=host))


def warning(certificate: Mapping[str, Any]) -> str:
    """Return that it ends soon, in words, or nothing."""
    left = _ends(certificate) - datetime.now(UTC)
    if left > ENDS_SOON:
        return ""
    if left.days < 1:
        sentence = to_translate("The certificate ends today: without a new one no mail goes out after that.")
    elif left.days == 1:
        sentence = to_translate("The certificate ends tomorrow: without a new one no mail goes out after that.")
    else:
        sentence = to_translate(
            "The certificate ends in %(count)s days: without a new one no mail goes out after that."
        )
    return str(gettext(sentence, count=left.days))


def _ends(certificate: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)


def _issuer(certificate: Mapping[str, Any]) -> str:
    parts = dict(_pairs(certificate.get("issuer", ())))
    return parts.get("organizationName") or parts.get("commonName") or gettext("an authority without a name")


def _pairs(name: Any) -> Iterator[tuple[str, str]]:
    for relative in name:
        yield from relative
