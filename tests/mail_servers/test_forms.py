"""What the form of a mail server takes, and what it says about the rest."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from portal.mail_servers.connection import AuthMode, Encryption
from portal.mail_servers.forms import MailServerForm, SenderForm
from portal.mail_servers.settings import Entered

GOOD: dict[str, Any] = {
    "provider": "smtp",
    "host": "smtp.acme.example",
    "port": "587",
    "encryption": "starttls",
    "auth_mode": "auto",
    "username": "mailer@acme.example",
    "password": "secret words",
    "sender_email": "pbx@acme.example",
}


@pytest.fixture(autouse=True)
def request_context(built_app: Flask) -> Iterator[None]:
    with built_app.test_request_context():
        yield


def filled(**changes: Any) -> MailServerForm:
    form = MailServerForm.from_values(GOOD | changes)
    assert isinstance(form, MailServerForm)
    return form


def test_good_values_come_out_as_settings() -> None:
    form = filled()
    assert form.validate(), form.errors
    assert form.entered() == Entered(
        provider="smtp",
        host="smtp.acme.example",
        port=587,
        encryption=Encryption.STARTTLS,
        auth_mode=AuthMode.AUTO,
        username="mailer@acme.example",
        password="secret words",
        sender_email="pbx@acme.example",
    )


@pytest.mark.parametrize(
    ("field", "given", "taken"),
    [
        ("host", " SMTP.Acme.Example. ", "smtp.acme.example"),
        ("host", "bücher.example", "xn--bcher-kva.example"),
        ("host", "localhost", "localhost"),
        ("host", "192.0.2.7", "192.0.2.7"),
        ("host", "[2001:DB8::7]", "2001:db8::7"),
        ("port", "1", 1),
        ("port", "65535", 65535),
        ("username", "u" * 320, "u" * 320),
        ("password", " ключ 鍵 🔑 ", " ключ 鍵 🔑 "),
        ("password", "p" * 1000, "p" * 1000),
        ("password", "", None),
    ],
)
def test_it_takes(field: str, given: str, taken: Any) -> None:
    form = filled(**{field: given})
    assert form.validate(), form.errors
    assert getattr(form.entered(), field) == taken


@pytest.mark.parametrize(
    ("field", "given", "words"),
    [
        ("port", "0", "from 1 to 65535"),
        ("port", "70000", "from 1 to 65535"),
        ("port", "-25", "from 1 to 65535"),
        ("port", "25.0", "from 1 to 65535"),
        ("port", "\N{FULLWIDTH DIGIT FIVE}87", "from 1 to 65535"),
        ("port", "9" * 5000, "from 1 to 65535"),
        ("port", None, "Enter the port"),
        ("host", "", "name or IP address"),
        ("host", "smtp://acme.example", "not a host name"),
        ("host", "smtp.acme.example:25", "not a host name"),
        ("host", "smtp acme", "not a host name"),
        ("host", "192.0.2.700", "not a host name"),
        ("host", "a" * 64 + ".example", "not a host name"),
        ("host", "smtp.acme\x00.example", "Control characters"),
        ("username", "mailer\r\nRCPT TO:<x@y.example>", "Control characters"),
        ("username", "", "Enter the username"),
        ("username", "u" * 321, "at most 320"),
        ("password", "new\nline", "Control characters"),
        ("password", "nul\x00", "Control characters"),
        ("password", "\ud800", "Control characters"),
        ("password", "p" * 1001, "at most 1000"),
        ("sender_email", "pbx", "not an e-mail address"),
        ("sender_email", "pbx@acme.example\r\nBcc: x@y.example", "Control characters"),
        ("sender_email", "", "Enter the address"),
        ("encryption", "ssl", "Not a valid choice"),
        ("auth_mode", "oauth2", "Not a valid choice"),
        ("provider", "hotmail", "Not a valid choice"),
    ],
)
def test_it_refuses(field: str, given: str | None, words: str) -> None:
    form = filled(**{field: given})
    assert not form.validate()
    assert list(form.errors) == [field]
    assert words in form.errors[field][0]


def test_no_username_is_needed_without_authentication() -> None:
    form = filled(auth_mode="none", username="", password="")
    assert form.validate(), form.errors
    assert form.entered().username is None


def test_a_sender_may_be_left_to_its_defaults() -> None:
    assert SenderForm.from_values({}).validate()


@pytest.mark.parametrize(
    ("field", "given"),
    [("reply_to", "a@b.example\r\nBcc: x@y.example"), ("reply_to", "nobody")],
)
def test_a_bad_sender_is_refused(field: str, given: str) -> None:
    form = SenderForm.from_values({field: given})
    assert not form.validate()
    assert list(form.errors) == [field]
