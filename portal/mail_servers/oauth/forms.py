"""The forms with which a mailbox is connected: a field with "secret" in its name is never sent back or kept."""

from datetime import UTC, datetime, time
from typing import Any, Self

from flask_babel import gettext, lazy_gettext
from wtforms import TextAreaField, ValidationError
from wtforms.fields import Field
from wtforms.validators import DataRequired, Optional

from portal.mail_servers.forms import WriteOnlyField
from portal.mail_servers.oauth.identity_providers import IdentityProvider, is_directory
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.oauth.private_keys import MAX_LENGTH, parse_certificate, parse_service_account
from portal.mail_servers.oauth.service import EnteredApp
from portal.web.forms import DayField, Normalize, PortalForm, TextField, has_control_characters, max_length
from portal.web.pasted_emails import parse_email

MAILBOX = lazy_gettext("Mailbox")
ENTER_MAILBOX = lazy_gettext("Enter the email address of the mailbox.")


def parse_directory(text: str) -> str:
    """Return a Microsoft directory; a ValueError says what is wrong with the text."""
    if not is_directory(text):
        raise ValueError(gettext("Enter the directory's ID or one of its domains, such as acme.onmicrosoft.com."))
    return text.lower()


class WriteOnlyArea(TextAreaField):
    """A long secret, which is never sent back."""

    def _value(self) -> str:
        return ""

    def pre_validate(self, form: PortalForm) -> None:  # noqa: ARG002 (WTForms' signature)
        """Reject control characters, except line ends and tabs."""
        if has_control_characters("".join((self.data or "").split())):
            raise ValidationError(gettext("Control characters are not allowed here."))


class AppForm(PortalForm):
    """A tenant's own app, with which a person signs in."""

    client_id = TextField(
        lazy_gettext("Client ID"), [DataRequired(lazy_gettext("Enter the client ID.")), max_length(200)]
    )
    client_secret = WriteOnlyField(lazy_gettext("Client secret"), [max_length(500)])
    directory = TextField(
        lazy_gettext("Directory (tenant) ID"),
        [max_length(253), Normalize(parse_directory)],
        description=lazy_gettext("Empty: accounts of any organisation."),
    )
    expires_on = DayField(
        lazy_gettext("Secret expires on"),
        [Optional()],
        description=lazy_gettext("You are reminded 30 days before."),
    )

    @classmethod
    def showing(cls, provider: IdentityProvider, connection: OAuthConnection | None, grant_type: str) -> Self:
        """Return the form with what is saved for this way to connect, without secrets."""
        data: dict[str, Any] = {}
        if connection and connection.grant_type == grant_type and connection.provider == provider.key:
            data = {name: getattr(connection, name) for name in ("client_id", "directory", "mailbox")}
            if connection.credential_expires_at and connection.certificate is None:
                data["expires_on"] = connection.credential_expires_at.date()
        return cls(formdata=None, data=data)

    def entered_app(self) -> EnteredApp:
        """Return what was entered in a valid form."""
        return EnteredApp(
            self.client_id.data,
            (self.directory.data or None) if "directory" in self else None,
            self.client_secret.data or None,
            credential_expires_at=_end_of(self.expires_on.data),
        )


class AppOnlyForm(AppForm):
    """An app that has the right to send from a mailbox, without a person."""

    directory = TextField(
        lazy_gettext("Directory (tenant) ID"),
        [DataRequired(lazy_gettext("Enter the directory.")), max_length(253), Normalize(parse_directory)],
    )
    secret_certificate = WriteOnlyArea(
        lazy_gettext("Certificate with private key"),
        [max_length(MAX_LENGTH), Normalize(parse_certificate)],
        description=lazy_gettext("Instead of a client secret: both in PEM format."),
    )
    mailbox = TextField(MAILBOX, [DataRequired(ENTER_MAILBOX), Normalize(parse_email)])

    def validate_client_secret(self, field: Field) -> None:
        """Require one proof, not two."""
        if field.data and self.secret_certificate.data:
            raise ValidationError(gettext("Enter either a client secret or a certificate."))

    def entered_app(self) -> EnteredApp:
        """Return what was entered in a valid form."""
        pasted = self.secret_certificate.data or None
        return EnteredApp(
            self.client_id.data,
            self.directory.data,
            self.client_secret.data or None,
            private_key=pasted.private_key if pasted else None,
            certificate=pasted.certificate if pasted else None,
            mailbox=self.mailbox.data,
            credential_expires_at=pasted.expires_at if pasted else _end_of(self.expires_on.data),
        )


class ServiceAccountForm(PortalForm):
    """A Google service account that may act for the mailboxes of a Workspace."""

    mailbox = TextField(MAILBOX, [DataRequired(ENTER_MAILBOX), Normalize(parse_email)])
    secret_key_file = WriteOnlyArea(
        lazy_gettext("Key file of the service account"),
        [
            DataRequired(lazy_gettext("Paste the key file.")),
            max_length(MAX_LENGTH),
            Normalize(parse_service_account),
        ],
        description=lazy_gettext("The content of the JSON file that was downloaded when the key was created."),
    )

    @classmethod
    def showing(cls, provider: IdentityProvider, connection: OAuthConnection | None, grant_type: str) -> Self:
        """Return the form with the saved mailbox, if it is connected in this way."""
        is_saved = connection and (connection.grant_type, connection.provider) == (grant_type, provider.key)
        return cls(formdata=None, data={"mailbox": connection.mailbox if connection and is_saved else ""})

    def entered_app(self) -> EnteredApp:
        """Return what was entered in a valid form."""
        key = self.secret_key_file.data
        return EnteredApp(key.client_email, private_key=key.private_key, mailbox=self.mailbox.data)


def _end_of(day: Any) -> datetime | None:
    return datetime.combine(day, time(), UTC) if day else None
