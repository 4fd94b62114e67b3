"""Recognisable secrets, and every place where one could turn up."""

import base64
import html
from collections.abc import Iterable
from contextlib import closing
from urllib.parse import quote

from flask import Flask
from flask.testing import FlaskClient

from tests.security.test_headers import walk
from tests.sql import sql

SIP, USER, PIN = "Sip&Geheim~4711", "User<Geheim>4712", "90817263540918"
OWN_MAIL, SYSTEM_MAIL = "Own'Mail+Geheim~4713", "System/Mail=Geheim~4714"
ACCOUNT, CHANGED = "Portal Geheim 4715", "Portal Geheim 4716"
NAMED = [SIP, USER, PIN, OWN_MAIL, SYSTEM_MAIL, ACCOUNT, CHANGED]
TABLES = """
    SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
    WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""


def disguises(secret: str) -> set[str]:
    """Return the secret and what it becomes in tables, pages, addresses, logs and on a mail server's line."""
    raw = secret.encode()
    sealed = {base64.b64encode(raw).decode(), base64.b64encode(b"\0mailer\0" + raw).decode()}
    return {secret, raw.hex(), html.escape(secret), quote(secret), quote(secret, safe=""), repr(secret)[1:-1], *sealed}


def found(text: str, secrets: Iterable[str]) -> list[str]:
    """Return the secrets that the text contains, however they are written."""
    return [secret for secret in secrets if any(each in text for each in disguises(secret))]


def lines(text: str, secrets: Iterable[str]) -> list[str]:
    """Return the lines that contain one of the secrets."""
    written = [each for secret in secrets for each in disguises(secret) if each in text]
    return [line for line in text.splitlines() if any(each in line for each in written)]


def tables() -> str:
    """Return every row of every table as text, as the tables' owner sees them: the job queue's too."""
    names = [name for (name,) in sql(TABLES)]
    assert {"public.events", "public.procrastinate_jobs", "public.accounts"} <= set(names)
    return "\n".join(str(row) for name in names for (row,) in sql(f"SELECT t::text FROM {name} AS t"))


def pages(app: Flask, browsers: Iterable[FlaskClient], domain: str) -> str:
    """Return everything that the portal shows these browsers."""
    answers = []
    for browser in browsers:
        for address in walk(app, domain):
            with closing(browser.get(address)) as answer:
                answers.append(f"{answer.headers}\n{answer.text}" if answer.mimetype != "font/woff" else "")
    return "\n".join(answers)
