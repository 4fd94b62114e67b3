"""The forms of imports, exports and deletion."""

import base64
import binascii
import zlib
from typing import Any

from flask_babel import gettext, lazy_gettext
from wtforms import HiddenField, PasswordField, RadioField, TextAreaField, ValidationError
from wtforms.fields import SelectChoice
from wtforms.validators import DataRequired

from portal.transfer.sealing import MAX_PASSPHRASE_LENGTH, MIN_PASSPHRASE_LENGTH
from portal.transfer.tenant_document import MAX_BYTES
from portal.web.forms import PortalForm, TextField, max_length

MAX_PACKED_LENGTH = 700_000  # characters
START_AGAIN = lazy_gettext("Start again with the content of the file.")
ENCRYPTED, LEFT_OUT = "encrypted", "left_out"


class ImportForm(PortalForm):
    """What to import: the text of a file, or rows copied from a spreadsheet. Pages take no files."""

    text = TextAreaField(
        lazy_gettext("Content of the file"), [DataRequired(lazy_gettext("Paste the content of a file, or choose one."))]
    )

    def validate_text(self, _field: TextAreaField) -> None:
        """Reject what the next form cannot hold."""
        if len(pack(self.content)) > MAX_PACKED_LENGTH:
            raise ValidationError(gettext("This is too much for a page. Use the command “tenants import”."))

    @property
    def content(self) -> bytes:
        """The text as a file in UTF-8."""
        return (self.text.data or "").encode("utf-8", "replace")


class ConfirmForm(PortalForm):
    """The content that was previewed, and the version of its preview."""

    content = HiddenField()
    version = HiddenField()
    passphrase = PasswordField(
        lazy_gettext("Passphrase"),
        [max_length(MAX_PASSPHRASE_LENGTH)],
        description=lazy_gettext("That of the export. Leave it empty to import the tenant without its secrets."),
        render_kw={"autocomplete": "off"},
    )
    unpacked: bytes = b""

    @classmethod
    def for_content(cls, content: bytes, version: str) -> "ConfirmForm":
        """Return the form of a preview."""
        return cls(formdata=None, data={"content": pack(content), "version": version})

    def validate_content(self, field: HiddenField) -> None:
        """Read the file from the field."""
        try:
            compressed = zlib.decompressobj()
            self.unpacked = compressed.decompress(base64.urlsafe_b64decode(field.data or ""), MAX_BYTES + 1)
        except (binascii.Error, zlib.error, ValueError):
            raise ValidationError(START_AGAIN) from None


def pack(content: bytes) -> str:
    """Return a file as the value of a hidden field."""
    return base64.urlsafe_b64encode(zlib.compress(content, 9)).decode()


class ExportForm(PortalForm):
    """What becomes of the secrets in an export."""

    secrets = RadioField(
        lazy_gettext("Passwords and other secrets"),
        choices=[
            SelectChoice(ENCRYPTED, lazy_gettext("Encrypted with a passphrase")),
            SelectChoice(LEFT_OUT, lazy_gettext("Left out: they must be entered again after the import")),
        ],
        default=ENCRYPTED,
    )
    passphrase = PasswordField(
        lazy_gettext("Passphrase"),
        [max_length(MAX_PASSPHRASE_LENGTH)],
        description=lazy_gettext(
            "At least %(least)s characters. Without it nobody can read the secrets, not even you.",
            least=MIN_PASSPHRASE_LENGTH,
        ),
        render_kw={"autocomplete": "new-password"},
    )
    repeated = PasswordField(lazy_gettext("Repeat the passphrase"), render_kw={"autocomplete": "new-password"})

    def validate_passphrase(self, field: PasswordField) -> None:
        """Require a passphrase to encrypt with."""
        if self.secrets.data == ENCRYPTED and len(field.data or "") < MIN_PASSPHRASE_LENGTH:
            raise ValidationError(
                gettext("A passphrase needs at least %(least)s characters.", least=MIN_PASSPHRASE_LENGTH)
            )

    def validate_repeated(self, field: PasswordField) -> None:
        """Require the same passphrase twice."""
        if self.secrets.data == ENCRYPTED and field.data != self.passphrase.data:
            raise ValidationError(gettext("The two passphrases are not the same."))

    @property
    def chosen_passphrase(self) -> str | None:
        """The passphrase to encrypt with, or None to leave the secrets out."""
        return self.passphrase.data if self.secrets.data == ENCRYPTED else None


class DeleteForm(PortalForm):
    """The tenant's name, typed to confirm its deletion."""

    name = TextField(lazy_gettext("Name of the tenant"), [DataRequired(lazy_gettext("Enter the tenant's name."))])

    def __init__(self, tenant_name: str = "", **arguments: Any) -> None:
        super().__init__(**arguments)
        self._tenant_name = tenant_name

    def validate_name(self, field: TextField) -> None:
        """Compare the name, without spaces around it and between its words."""
        if (field.data or "").split() != self._tenant_name.split():
            raise ValidationError(gettext("Enter the name exactly: %(name)s", name=self._tenant_name))
