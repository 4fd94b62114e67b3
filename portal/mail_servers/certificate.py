"""What a mail server's certificate says, in words for a person."""

import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

ENDS_SOON: Final = timedelta(days=14)  # who renews by himself has done so by then
SHOWN: Final = 3  # names


def facts(certificate: Mapping[str, Any], host: str) -> tuple[str, ...]:
    """Return what a verified certificate (as `getpeercert` has it) says: for whom, by whom and until when."""
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"Certificate for {', '.join(names[:SHOWN])}{more}, verified for {host}",
        f"Issued by {_issuer(certificate)}, ends on {_ends(certificate):%-d %B %Y}",
    )


def warning(certificate: Mapping[str, Any]) -> str:
    """Return that it ends soon, in words, or nothing."""
    left = _ends(certificate) - datetime.now(UTC)
    if left > ENDS_SOON:
        return ""
    when = "today" if left.days < 1 else "tomorrow" if left.days == 1 else f"in {left.days} days"
    return f"The certificate ends {when}: without a new one no mail goes out after that."


def _ends(certificate: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)


def _issuer(certificate: Mapping[str, Any]) -> str:
    parts = dict(_pairs(certificate.get("issuer", ())))
    return parts.get("organizationName") or parts.get("commonName") or "an authority without a name"


def _pairs(name: Any) -> Iterator[tuple[str, str]]:
    for relative in name:
        yield from relative
