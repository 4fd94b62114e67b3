"""The forms of a mail server, and of the sender of a tenant's mail."""

import ipaddress
from typing import Any

from flask_babel import gettext, lazy_gettext
from flask_wtf import FlaskForm
from wtforms import PasswordField, SelectField, ValidationError
from wtforms.fields import SelectChoice
from wtforms.validators import InputRequired, Length

from portal.forms import CheckedBy, PortalForm, TextField, address, domain, has_control_characters
from portal.mail_servers.connection import AuthMode, Encryption
from portal.mail_servers.models import MailServer
from portal.mail_servers.providers import GROUPS, PROVIDERS
from portal.mail_servers.settings import Entered

LARGEST_PORT = 65_535
SHOWN = ("provider", "host", "port", "encryption", "auth_mode", "username", "sender_email")


def host(text: str) -> str:
    """Return a mail server's address: a host name in its ASCII form, or an IP address.

    Raises:
        ValueError: with a sentence that says what is wrong with it.
    """
    text = text.strip()
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    try:
        name = domain(text)
    except ValueError:
        name = ""
    # A name never ends in a number (RFC 3696, section 2): it is an IP address with a typing error.
    if not name or name.rpartition(".")[2].isdigit():
        raise ValueError(
            gettext(
                "“%(text)s” is not a host name or an IP address. Write it like “smtp.acme.example”.", text=text[:80]
            )
        )
    return name


def port(text: str) -> int:
    """Return the number of a TCP port.

    Raises:
        ValueError: with a sentence that says what is wrong with it.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= LARGEST_PORT):
        raise ValueError(gettext("Enter a port from 1 to %(largest)s.", largest=LARGEST_PORT))
    return int(text)


class WriteOnlyField(PasswordField):
    """A password: as it was typed, never sent back."""

    def pre_validate(self, form: FlaskForm) -> None:  # noqa: ARG002 (WTForms' signature)
        """Refuse control characters."""
        if has_control_characters(self.data or ""):
            raise ValidationError(gettext("Control characters are not allowed here."))


class MailServerForm(PortalForm):
    """The SMTP settings of the system or of a tenant, under the names that administrators of PortSIP know."""

    provider = SelectField(
        lazy_gettext("Email Service Provider"),
        choices=[
            SelectChoice(key, lazy_gettext(each.label), optgroup=lazy_gettext(name))
            for name, group in GROUPS.items()
            for key, each in group.items()
        ],
        default="smtp",
    )
    host = TextField(
        lazy_gettext("SMTP Server Address"),
        [InputRequired(lazy_gettext("Enter the mail server's name or IP address.")), CheckedBy(host)],
    )
    port = TextField(
        lazy_gettext("SMTP Server Port"),
        [InputRequired(lazy_gettext("Enter the port, usually 587.")), CheckedBy(port)],
        default=587,
    )
    encryption = SelectField(
        lazy_gettext("Encryption"),
        choices=[
            SelectChoice(Encryption.NONE, lazy_gettext("None")),
            SelectChoice(Encryption.STARTTLS, "STARTTLS"),
            SelectChoice(Encryption.TLS, "TLS"),
        ],
        default=Encryption.STARTTLS,
    )
    auth_mode = SelectField(
        lazy_gettext("Authentication Mode"),
        choices=[
            SelectChoice(AuthMode.NONE, lazy_gettext("None")),
            SelectChoice(AuthMode.AUTO, lazy_gettext("Auto")),
            SelectChoice(AuthMode.LOGIN, "LOGIN"),
            SelectChoice(AuthMode.PLAIN, "PLAIN"),
        ],
        default=AuthMode.AUTO,
    )
    username = TextField(
        lazy_gettext("Username"),
        [Length(max=320, message=lazy_gettext("Enter at most %(most)s characters.", most=320))],
    )
    password = WriteOnlyField(
        lazy_gettext("Password"),
        [Length(max=1000, message=lazy_gettext("Enter at most %(most)s characters.", most=1000))],
    )
    sender_email = TextField(
        lazy_gettext("Sender email"),
        [InputRequired(lazy_gettext("Enter the address that mails come from.")), CheckedBy(address)],
        description=lazy_gettext("The address that mails come from. The mail server must allow it."),
    )

    presets_username = False  # whether the username is the chosen provider's, and the same for everybody

    @classmethod
    def showing(cls, server: MailServer | None, provider: str | None = None) -> "MailServerForm":
        """Return the form with what is saved, except the password, or with what a provider wants."""
        username = ""
        data: dict[str, Any] = {name: getattr(server, name) for name in SHOWN} if server else {}
        if provider and provider in PROVIDERS and not (server and server.provider == provider):
            known = PROVIDERS[provider]
            data |= {"provider": provider, "host": known.host, "port": known.port, "encryption": known.encryption}
            username = known.username
        form = cls(formdata=None, data=data | ({"username": username} if username else {}))
        form.presets_username = bool(username)
        return form

    @property
    def hint(self) -> str:
        """What to know about the chosen provider."""
        known = PROVIDERS.get(self.provider.data)
        return gettext(known.hint) if known and known.hint else ""

    def validate_username(self, field: TextField) -> None:
        """Ask for a username where the settings sign in."""
        if not field.data and self.auth_mode.data != AuthMode.NONE:
            raise ValidationError(gettext("Enter the username, or choose None as the authentication mode."))

    def entered(self) -> Entered:
        """Return what was entered into a valid form."""
        return Entered(
            provider=self.provider.data,
            host=self.host.data,
            port=int(self.port.data or 0),
            encryption=Encryption(self.encryption.data),
            auth_mode=AuthMode(self.auth_mode.data),
            username=self.username.data or None,
            password=self.password.data or None,
            sender_email=self.sender_email.data,
        )


class SenderForm(PortalForm):
    """Where answers to a tenant's mails go. The name they come from belongs to its brand."""

    reply_to = TextField(lazy_gettext("Reply-To"), [CheckedBy(address)])
