"""What all forms share. The commands use the forms of the pages, so that both accept the same values."""

import unicodedata
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any

import email_validator
import idna
from flask_babel import gettext, lazy_gettext
from flask_wtf import FlaskForm
from markupsafe import escape
from werkzeug.datastructures import MultiDict
from wtforms import DateField, StringField, ValidationError
from wtforms.fields import Field
from wtforms.validators import Length
from wtforms.widgets import Input, core

from portal.errors import Refusal
from portal.web.library_texts import FormTexts

MAX_EMAIL_LENGTH = 254  # RFC 5321, section 4.5.3.1.3
MAX_DOMAIN_LENGTH = 253  # RFC 1035, section 2.3.4, as text


def attributes(**values: Any) -> str:
    """Return HTML attributes as WTForms' `html_params` does, which takes four times as long: most of a form's time."""
    given = ((core.clean_key(name), value) for name, value in sorted(values.items()) if value is not False)
    return " ".join(name if value is True else f'{name}="{_quotable(value)}"' for name, value in given)


def _quotable(value: Any) -> str:
    """Return a value as HTML to put into quotation marks. A `Markup` may contain some."""
    return str(escape(value)).replace('"', "&quot;")


core.html_params, Input.html_params = attributes, staticmethod(attributes)  # for the controls of all forms


def has_control_characters(text: str) -> bool:
    """Return whether `text` has a control character, a line end, a lone surrogate or a non-character."""
    return any(
        unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or ord(character) & 0xFFFE == 0xFFFE
        for character in text
    )


def normalize_email(text: str) -> str:
    """Return an email address with its domain in ASCII. Raise ValueError with a sentence for people."""
    text = text.strip()
    parts = _validate_email(text, allow_smtputf8=False)
    if parts is not None and parts.ascii_email is not None:
        return parts.ascii_email
    shown = text[:80]
    if not text.isascii() and _validate_email(text, allow_smtputf8=True):  # RFC 6531: few mail servers accept it
        raise ValueError(
            gettext("“%(text)s” is not supported here: before the @ only unaccented Latin letters are.", text=shown)
        )
    raise ValueError(gettext("“%(text)s” is not an email address.", text=shown))


def _validate_email(text: str, *, allow_smtputf8: bool) -> email_validator.ValidatedEmail | None:
    if len(text) > MAX_EMAIL_LENGTH:  # the library would take a second for a long one
        return None
    try:
        return email_validator.validate_email(
            text, check_deliverability=False, globally_deliverable=False, allow_smtputf8=allow_smtputf8, strict=True
        )
    except email_validator.EmailNotValidError:
        return None


def normalize_domain(text: str) -> str:
    """Return a domain in lower-case ASCII, without a final dot. Raise ValueError with a sentence for people."""
    try:
        name = idna.encode(text.strip().rstrip("."), uts46=True).decode().lower()
    except (idna.IDNAError, UnicodeError):
        name = ""
    if not name or len(name) > MAX_DOMAIN_LENGTH:
        sentence = gettext("“%(text)s” is not a domain name. Use a name like “acme.example”.", text=text.strip()[:80])
        raise ValueError(sentence)
    return name


class TextField(StringField):
    """One line of text without control characters. Leading and trailing spaces are removed."""

    def process_formdata(self, valuelist: list[str]) -> None:
        """Read the submitted value."""
        self.data = valuelist[0].strip() if valuelist else ""

    def pre_validate(self, form: FlaskForm) -> None:  # noqa: ARG002 (WTForms' signature)
        """Reject control characters before any other check."""
        if has_control_characters(self.data or ""):
            raise ValidationError(gettext("Control characters are not allowed here."))


class DayField(DateField):
    """A date."""

    def process_formdata(self, valuelist: list[str]) -> None:
        """Read the submitted value."""
        try:
            super().process_formdata(valuelist)
        except ValueError:
            raise ValueError(gettext("Enter a date like 2027-01-31.")) from None


def max_length(most: int) -> Length:
    """Return a validator for text of at most so many characters."""
    return Length(max=most, message=lazy_gettext("Enter at most %(most)s characters.", most=most))


class Normalize:
    """A validator that replaces a field's data by a function, which raises ValueError with a sentence for people."""

    def __init__(self, normalize: Callable[[str], Any]) -> None:
        self.normalize = normalize

    def __call__(self, _form: FlaskForm, field: Field) -> None:
        """Validate the field."""
        if field.data:
            try:
                field.data = self.normalize(field.data)
            except ValueError as error:
                raise ValidationError(str(error)) from None


class Edit(Enum):
    """What to do with an edit, if what it was based on may have changed meanwhile."""

    SAVE = auto()
    IGNORE = auto()  # the author changed nothing, so the newer values stay
    CONFLICT = auto()


def compare_edit(based_on: str | None, current: str, entered: str) -> Edit:
    """Compare the version that the author started from (None: unknown) with the current one and the author's."""
    if based_on is None or current in (based_on, entered):
        return Edit.SAVE
    return Edit.IGNORE if entered == based_on else Edit.CONFLICT


class PortalForm(FlaskForm):
    """The base of all forms."""

    class Meta(FlaskForm.Meta):
        """WTForms' settings."""

        def get_translations(self, _form: FlaskForm) -> FormTexts:
            """Return what gives WTForms' messages in the portal's words."""
            return FormTexts()

    def refuse(self, refusal: Refusal) -> None:
        """Show a refusal at its field, or above the form if it has no such field."""
        field = self._fields.get(refusal.field)
        if field is None:
            self.form_errors.append(refusal.text)
        else:
            field.errors = [*field.errors, refusal.text]

    @classmethod
    def from_values(cls, values: Mapping[str, Any], **arguments: Any) -> "PortalForm":
        """Return the form filled in with values, as a browser would submit it; None leaves a field out."""
        pairs = [(name, text) for name, value in values.items() for text in _form_values(value)]
        return cls(formdata=MultiDict(pairs), meta={"csrf": False}, **arguments)

    @property
    def first_error(self) -> str | None:
        """The first error with its field's label, or None."""
        for field in self:
            if field.errors:
                return str(gettext("%(field)s: %(error)s", field=field.label.text, error=field.errors[0]))
        return self.form_errors[0] if self.form_errors else None


def _form_values(value: Any) -> list[str]:
    if value is None or value is False:
        return []
    return ["y"] if value is True else [str(value)]
