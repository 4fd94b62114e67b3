"""The mail server form: valid and invalid values."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from portal.mail_servers.forms import MailServerForm, SenderForm
from portal.mail_servers.service import EnteredSettings
from portal.mail_servers.smtp.client import AuthMode, Encryption

VALID: dict[str, Any] = {
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
    form = MailServerForm.from_values(VALID | changes)
    assert isinstance(form, MailServerForm)
    return form


def test_valid_values_become_settings() -> None:
    form = filled()
    assert form.validate(), form.errors
    assert form.entered_settings() == EnteredSettings(
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
    ("field", "entered", "saved"),
    [
        ("host", " SMTP.Acme.Example. ", "smtp.acme.example"),
        ("host", "bücher.example", "xn--bcher-kva.example"),
        ("host", "localhost", "localhost"),
        ("host", "Mail_Server", "mail_server"),
        ("host", "mail_server.acme_default", "mail_server.acme_default"),
        ("host", "_smtp", "_smtp"),
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
def test_valid_values(field: str, entered: str, saved: Any) -> None:
    form = filled(**{field: entered})
    assert form.validate(), form.errors
    assert getattr(form.entered_settings(), field) == saved


@pytest.mark.parametrize(
    ("field", "entered", "error"),
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
        ("host", "mail_server..acme", "not a host name"),
        ("host", "mail_server:25", "not a host name"),
        ("host", "mail_server.1", "not a host name"),
        ("host", "-mail_server", "not a host name"),
        ("host", "a" * 63 + "_", "not a host name"),
        ("host", "a" * 64 + ".example", "not a host name"),
        ("host", "smtp.acme\x00.example", "Control characters"),
        ("username", "mailer\r\nRCPT TO:<x@y.example>", "Control characters"),
        ("username", "", "Enter the username"),
        ("username", "u" * 321, "at most 320"),
        ("password", "new\nline", "Control characters"),
        ("password", "nul\x00", "Control characters"),
        ("password", "\ud800", "Control characters"),
        ("password", "p" * 1001, "at most 1000"),
        ("sender_email", "pbx", "not an email address"),
        ("sender_email", "pbx@acme.example\r\nBcc: x@y.example", "Control characters"),
        ("sender_email", "", "Enter the sender email"),
        ("encryption", "ssl", "Choose one of the options"),
        ("auth_mode", "oauth2", "Choose one of the options"),
        ("provider", "hotmail", "Choose one of the options"),
    ],
)
def test_invalid_values(field: str, entered: str | None, error: str) -> None:
    form = filled(**{field: entered})
    assert not form.validate()
    assert list(form.errors) == [field]
    assert error in form.errors[field][0]


def test_no_username_is_needed_without_authentication() -> None:
    form = filled(auth_mode="none", username="", password="")
    assert form.validate(), form.errors
    assert form.entered_settings().username is None


def test_reply_to_is_optional() -> None:
    assert SenderForm.from_values({}).validate()


@pytest.mark.parametrize(
    ("field", "entered"),
    [("reply_to", "a@b.example\r\nBcc: x@y.example"), ("reply_to", "nobody")],
)
def test_an_invalid_reply_to_is_rejected(field: str, entered: str) -> None:
    form = SenderForm.from_values({field: entered})
    assert not form.validate()
    assert list(form.errors) == [field]
