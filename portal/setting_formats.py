"""The formats of settings: what a value must look like, and what it means."""

import base64
import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, timeout_from_conninfo
from psycopg.pq import Conninfo
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

MIN_SECRET_LENGTH: Final = 32
MIN_DIFFERENT_CHARACTERS: Final = 11  # 32 random hexadecimal digits have about 14
ENCRYPTION_KEY_BYTES: Final = 32

MICROSOFT_HOSTS: Final = {
    *("login.microsoftonline.com", "sts.windows.net"),
    *("login.microsoftonline.us", "login.partner.microsoftonline.cn", "login.chinacloudapi.cn"),  # national clouds
}
_PRIVATE_ACCOUNTS = "9188040d-6c67-4c5b-b112-36a304b66dad"  # Microsoft's directory of all private accounts
_DIRECTORY_ID = re.compile(rf"/(?!{_PRIVATE_ACCOUNTS})[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}/", re.I)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST = re.compile(r"[a-z0-9_.-]+|([0-9a-f]*:){2}[0-9a-f:.]*")  # a name, or an IP address
_FULL_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)+(?!\d+$){_LABEL}")  # mail servers reject names without a dot


def split(text: str) -> tuple[str, ...]:
    """Return the parts of a list that is separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def without_path(url: str) -> str:
    """Return the URL of the portal without a final slash."""
    try:
        parts = urlsplit(url)
        is_valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.username is not None or any(map(str.isspace, url)):
        raise ValueError("must be like https://portal.example.com or https://portal.example.com:8443")
    if parts.path.strip("/") or parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError(
            "must not have a path: the portal needs a host name of its own, like https://portal.example.com"
        )
    return f"{parts.scheme}://{parts.netloc}"


def check_database_url(url: str) -> None:
    """Raise ValueError for a URL that libpq or SQLAlchemy cannot read. Its text has no part that may be a password."""
    try:
        parsed = make_url(url)
        unknown = parsed.query.keys() - {option.keyword.decode() for option in Conninfo.get_defaults()}
        if not unknown:
            parts = conninfo_to_dict(url)
            timeout_from_conninfo(parts)
            if parsed.password and parsed.password != parts.get("password"):
                raise ValueError  # each of them sees another password
    except (ArgumentError, ValueError, psycopg.ProgrammingError):
        raise ValueError(
            "must be like postgresql://user:password@host:5432/database?connect_timeout=5, with other characters than "
            "letters and digits as in %40"
        ) from None
    if unknown and url.count("@") > 1:  # a name may be part of a password
        raise ValueError("has a parameter that Postgres does not know")
    if unknown:
        raise ValueError(f"has a parameter that Postgres does not know: {min(unknown)}")


def is_strong(secret: str) -> bool:
    """Return whether a secret is long and looks random."""
    return len(secret) >= MIN_SECRET_LENGTH and len(set(secret)) >= MIN_DIFFERENT_CHARACTERS


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def full_host_name(host: str) -> str | None:
    """Return a full host name, or an IP address as a literal (RFC 5321, section 4.1.3); None for anything else."""
    try:
        address = ip_address(host.strip("[]").removeprefix("IPv6:").partition("%")[0])
    except ValueError:
        try:
            name = host.rstrip(".").encode("idna").decode()
        except UnicodeError:
            return None
        return name if _FULL_HOST_NAME.fullmatch(name) else None
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"


def parse_keys(text: str) -> dict[str, bytes]:
    """Return the encryption keys by id, the encrypting one first. Raise ValueError if a part is not valid."""
    keys: dict[str, bytes] = {}
    for part in text.split(","):
        key_id, _, encoded = part.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        if not key_id or len(key) != ENCRYPTION_KEY_BYTES or key_id in keys:
            raise ValueError("must be id:base64 of 32 random bytes, separated by commas, each id once")
        keys[key_id] = key
    return keys


def is_provider_url(url: str) -> bool:
    """Return whether secrets may be sent to this URL: over TLS, or to this machine."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    except ValueError:
        return False
    has_only_a_path = parts.username is None and not parts.query and not parts.fragment
    return is_valid and has_only_a_path and bool(parts.hostname) and re.fullmatch(r"[!-~]+", url) is not None


def names_many_directories(issuer: str) -> bool:
    """Return whether anyone can get an account at this issuer of Microsoft, with any email address in it (nOAuth)."""
    parts = urlsplit(issuer)
    return parts.hostname in MICROSOFT_HOSTS and not _DIRECTORY_ID.match(parts.path + "/")
