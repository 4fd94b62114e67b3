"""The forms of a mail server and of the sender of a tenant's email."""

import ipaddress
import re
from functools import cache
from typing import Any, Self

from flask_babel import gettext, lazy_gettext
from flask_bootstrap import SwitchField
from flask_wtf import FlaskForm
from markupsafe import Markup, escape
from wtforms import HiddenField, PasswordField, SelectField, ValidationError
from wtforms.fields import SelectChoice
from wtforms.validators import DataRequired
from wtforms.widgets import html_params

from portal.mail_servers.models import MailServer
from portal.mail_servers.providers import PROVIDER_GROUPS, PROVIDERS, Provider, key_of
from portal.mail_servers.service import EnteredSettings, version
from portal.mail_servers.smtp.client import AuthMode, Encryption
from portal.tenants.models import Tenant
from portal.web.forms import Normalize, PortalForm, TextField, has_control_characters, max_length, normalize_domain
from portal.web.i18n import current_language
from portal.web.pasted_emails import parse_email

MAX_PORT = 65_535
_LABEL = r"\w(?:[\w-]{0,61}\w)?"
_NAME_WITH_UNDERSCORE = re.compile(rf"(?=.*_){_LABEL}(?:\.{_LABEL})*", re.ASCII)  # as Docker containers have
SAVED_FIELDS = ("provider", "host", "port", "encryption", "auth_mode", "username", "sender_email")


def parse_host(text: str) -> str:
    """Return a mail server's host name in ASCII, or its IP address; a ValueError says what is wrong with the text."""
    text = text.strip()
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    try:
        name = text.lower() if _NAME_WITH_UNDERSCORE.fullmatch(text) else normalize_domain(text)
    except ValueError:
        name = ""
    # A host name never ends in a number (RFC 3696, section 2): it is an IP address with a typing error.
    if not name or name.rpartition(".")[2].isdigit():
        raise ValueError(
            gettext(
                "“%(text)s” is not a host name or an IP address. Write it like “smtp.acme.example”.", text=text[:80]
            )
        )
    return name


def parse_port(text: str) -> int:
    """Return a TCP port; a ValueError says what is wrong with the text."""
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= MAX_PORT):
        raise ValueError(gettext("Enter a port from 1 to %(largest)s.", largest=MAX_PORT))
    return int(text)


class WriteOnlyField(PasswordField):
    """A password, exactly as it was typed, and never sent back."""

    def pre_validate(self, form: FlaskForm) -> None:  # noqa: ARG002 (WTForms' signature)
        """Reject control characters."""
        if has_control_characters(self.data or ""):
            raise ValidationError(gettext("Control characters are not allowed here."))


class ProviderWidget:
    """The control of the providers. Their options are rendered once per language: they are half of the page's form."""

    def __call__(self, field: SelectField, **attributes: Any) -> Markup:
        """Return the HTML."""
        options = _provider_options(current_language()).replace(
            f'<option value="{escape(field.data)}">', f'<option selected value="{escape(field.data)}">'
        )
        parameters = html_params(id=field.id, name=field.name, **attributes)
        return Markup(f"<select {parameters}>{options}</select>")  # noqa: S704 (escaped)


@cache
def _provider_options(_language: str) -> str:
    """Return the options, in the language of the request."""
    groups = (
        (gettext(label), [(key, gettext(provider.label)) for key, provider in group.items()])
        for label, group in PROVIDER_GROUPS.items()
    )
    return "".join(
        f'<optgroup label="{escape(label)}">'
        + "".join(f'<option value="{escape(key)}">{escape(name)}</option>' for key, name in options)
        + "</optgroup>"
        for label, options in groups
    )


class MailServerForm(PortalForm):
    """The SMTP settings of the system or of a tenant, with the labels that administrators know from PortSIP."""

    provider = SelectField(
        lazy_gettext("Email Service Provider"),
        choices=[
            SelectChoice(key, lazy_gettext(provider.label), optgroup=lazy_gettext(group_label))
            for group_label, group in PROVIDER_GROUPS.items()
            for key, provider in group.items()
        ],
        default="smtp",
        widget=ProviderWidget(),
    )
    host = TextField(
        lazy_gettext("SMTP Server Address"),
        [DataRequired(lazy_gettext("Enter the mail server's name or IP address.")), Normalize(parse_host)],
    )
    provider_host = SelectField(choices=[], validate_choice=False)  # one of the chosen provider's hosts
    port = TextField(
        lazy_gettext("SMTP Server Port"),
        [DataRequired(lazy_gettext("Enter the port, usually 587.")), Normalize(parse_port)],
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
            SelectChoice(AuthMode.OAUTH, "OAuth 2.0"),
        ],
        default=AuthMode.AUTO,
        description=lazy_gettext("With OAuth 2.0 no password is needed: save, then connect the mailbox."),
    )
    username = TextField(lazy_gettext("Username"), [max_length(320)])
    password = WriteOnlyField(lazy_gettext("Password"), [max_length(1000)])
    sender_email = TextField(
        lazy_gettext("Sender email"),
        [DataRequired(lazy_gettext("Enter the sender email.")), Normalize(parse_email)],
        description=lazy_gettext("The address that emails come from. The mail server must allow it."),
    )

    server_based_on = HiddenField()  # the settings when the page was opened, as `service.version` writes them

    presets_username = False  # whether the chosen provider decides about the username
    is_suggested = False  # whether the provider was suggested

    @classmethod
    def for_server(cls, server: MailServer | None, provider_key: str | None = None, host: str | None = None) -> Self:
        """Return the form with the saved settings, except the password, or with a provider's settings."""
        data: dict[str, Any] = {name: getattr(server, name) for name in SAVED_FIELDS} if server else {}
        if server and server.provider not in PROVIDERS:  # an entry of an earlier version
            data["provider"] = key_of(server.host) or "smtp"
        data |= {"server_based_on": version(server), "shared": server is not None and server.shared}
        form = cls(formdata=None, data=data)
        if provider_key in PROVIDERS and (host or not (server and server.provider == provider_key)):
            form.provider.data, form.provider_host.data = provider_key, host
            form.fill_in()
        return form

    def fill_in(self, suggested_host: str = "") -> None:
        """Replace the settings by those of the chosen provider, or of the one with a suggested host."""
        if suggested := key_of(suggested_host):
            self.provider.data, self.provider_host.data = suggested, suggested_host
            self.is_suggested = True
        provider = self.chosen_provider
        if provider is None:
            return
        chosen = self.provider_host.data
        self.host.data = chosen if chosen in provider.hosts else provider.host
        self.provider_host.data = None
        self.port.data, self.encryption.data = str(provider.port), provider.encryption
        self.auth_mode.data = provider.auth_mode
        others = {other.username for other in PROVIDERS.values() if other.username}
        if provider.username or self.username.data in others:
            self.username.data, self.presets_username = provider.username, True
        elif suggested and not self.username.data:
            self.username.data = self.sender_email.data

    @property
    def chosen_provider(self) -> Provider | None:
        """The chosen provider, or None if there is no such one."""
        return PROVIDERS.get(self.provider.data)

    def offer_hosts(self) -> SelectField | None:
        """Return the field to choose one of the chosen provider's hosts, or None if all its customers use the same."""
        provider, field = self.chosen_provider, self.provider_host
        if provider is None or not provider.hosts:
            return None
        entered = self.host.data if self.host.data in provider.hosts else ""
        field.label.text = gettext(provider.choice)
        field.choices = [] if entered else [SelectChoice("", gettext("Other"))]
        field.choices += [SelectChoice(host, gettext(label)) for host, label in provider.hosts.items()]
        field.data = field.data or entered
        return field

    def validate_provider_host(self, field: SelectField) -> None:
        """Reject a choice that was not filled in, as can happen without JavaScript."""
        provider = self.chosen_provider
        hosts = provider.hosts if provider else {}
        if field.data in hosts and self.host.data in hosts and field.data != self.host.data:
            raise ValidationError(gettext("This does not match the server address. Change one of them."))

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was entered, as far as that can be seen without a saved mail server."""
        choices = (self.provider, self.encryption, self.auth_mode)
        texts = (self.host.data, self.username.data, self.password.data, self.sender_email.data)
        return (
            not any(texts)
            and self.port.data in ("", self.port.default, str(self.port.default))
            and all(field.data == field.default for field in choices)
        )

    @property
    def hint(self) -> str:
        """What to know about the chosen provider."""
        provider = self.chosen_provider
        return gettext(provider.hint) if provider and provider.hint else ""

    @property
    def warning(self) -> str:
        """What the chosen provider is about to change for those who sign in without OAuth 2.0."""
        provider = self.chosen_provider
        is_shown = provider and provider.warning and self.auth_mode.data != AuthMode.OAUTH
        return gettext(provider.warning) if provider and is_shown else ""

    def validate_username(self, field: TextField) -> None:
        """Require a username if the portal signs in. With OAuth 2.0 it is the mailbox, which signing in fills in."""
        if not field.data and self.auth_mode.data not in (AuthMode.NONE, AuthMode.OAUTH):
            raise ValidationError(gettext("Enter the username, or choose None as the authentication mode."))

    def entered_settings(self) -> EnteredSettings:
        """Return the settings in a valid form."""
        return EnteredSettings(
            provider=self.provider.data,
            host=self.host.data,
            port=int(self.port.data or 0),
            encryption=Encryption(self.encryption.data),
            auth_mode=AuthMode(self.auth_mode.data),
            username=self.username.data or None,
            password=self.password.data or None,
            sender_email=self.sender_email.data,
        )


class SystemMailServerForm(MailServerForm):
    """The system's mail server, and whether tenants may use it."""

    shared = SwitchField(
        lazy_gettext("Apply the mail server settings to all tenants"),
        description=lazy_gettext("Tenants with their own mail server keep using it."),
    )


class SenderForm(PortalForm):
    """Where replies to a tenant's emails go. The sender's name is part of the branding."""

    reply_to_based_on = HiddenField()  # the address when the page was opened
    reply_to = TextField(
        lazy_gettext("Reply-To"),
        [Normalize(parse_email)],
        description=lazy_gettext(
            "Replies to the emails go here. Leave it empty to get them at the sender's email address."
        ),
    )

    @classmethod
    def showing(cls, tenant: Tenant) -> Self:
        """Return the form with the saved address."""
        email = tenant.reply_to or ""
        return cls(formdata=None, data={"reply_to": email, "reply_to_based_on": email})
