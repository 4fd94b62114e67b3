"""What all forms share. A command line uses the same forms as the pages, so that both accept the same."""

import unicodedata
from collections.abc import Mapping
from typing import Any

import email_validator
import idna
from flask_babel import gettext
from flask_wtf import FlaskForm
from werkzeug.datastructures import MultiDict
from wtforms import DateField, StringField, ValidationError
from wtforms.fields import Field

from portal.errors import Refusal

MAXIMUM_DOMAIN_LENGTH = 253  # RFC 1035, section 2.3.4, as text


def has_control_characters(text: str) -> bool:
    """Return whether `text` holds a control character, a line end, half of a surrogate pair or a non-character."""
    return any(
        unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or ord(character) & 0xFFFE == 0xFFFE
        for character in text
    )


def address(text: str) -> str:
    """Return the e-mail address in its canonical form, a domain with other letters in its ASCII form.

    Raises:
        ValueError: with a sentence that says what is wrong with it.
    """
    try:
        parts = email_validator.validate_email(
            text.strip(), check_deliverability=False, globally_deliverable=False, allow_smtputf8=False, strict=True
        )
    except email_validator.EmailNotValidError:
        raise ValueError(gettext("“%(text)s” is not an e-mail address.", text=text.strip()[:80])) from None
    assert parts.ascii_email is not None
    return parts.ascii_email


def domain(text: str) -> str:
    """Return a host or SIP domain name in its ASCII form, lower case, without the final dot.

    Raises:
        ValueError: with a sentence that says what is wrong with it.
    """
    try:
        name = idna.encode(text.strip().rstrip("."), uts46=True).decode().lower()
    except (idna.IDNAError, UnicodeError):
        name = ""
    if not name or len(name) > MAXIMUM_DOMAIN_LENGTH:
        sentence = gettext("“%(text)s” is not a domain name. Write it like “acme.example”.", text=text.strip()[:80])
        raise ValueError(sentence)
    return name


class TextField(StringField):
    """One line of text, without blanks around it and without control characters."""

    def process_formdata(self, valuelist: list[str]) -> None:
        """Take the browser's value."""
        self.data = valuelist[0].strip() if valuelist else ""

    def pre_validate(self, form: FlaskForm) -> None:  # noqa: ARG002 (WTForms' signature)
        """Refuse control characters before any other check sees them."""
        if has_control_characters(self.data or ""):
            raise ValidationError(gettext("Control characters are not allowed here."))


class DayField(DateField):
    """A day."""

    def process_formdata(self, valuelist: list[str]) -> None:
        """Take the browser's value."""
        try:
            super().process_formdata(valuelist)
        except ValueError:
            raise ValueError(gettext("Enter a day like 2027-01-31.")) from None


class CheckedBy:
    """Make a function that returns a canonical value, or raises ValueError, the validator of a field."""

    def __init__(self, check: Any) -> None:
        self.check = check

    def __call__(self, _form: FlaskForm, field: Field) -> None:
        """Replace the field's data by its canonical form."""
        if field.data:
            try:
                field.data = self.check(field.data)
            except ValueError as error:
                raise ValidationError(str(error)) from None


class PortalForm(FlaskForm):
    """The base of all forms."""

    def refuse(self, refusal: Refusal) -> None:
        """Show a refusal of the domain at its field."""
        field = self._fields.get(refusal.field)
        if field is None:
            self.form_errors.append(refusal.text)
        else:
            field.errors = [*field.errors, refusal.text]

    @classmethod
    def from_values(cls, values: Mapping[str, Any], **arguments: Any) -> "PortalForm":
        """Return the form filled in by a program, as a browser would: None leaves a field out."""
        pairs = [(name, each) for name, value in values.items() for each in _texts(value)]
        return cls(formdata=MultiDict(pairs), meta={"csrf": False}, **arguments)

    @property
    def first_error(self) -> str | None:
        """The first error in words, with its field's label; None where the form is in order."""
        for field in self:
            if field.errors:
                return str(gettext("%(field)s: %(error)s", field=field.label.text, error=field.errors[0]))
        return self.form_errors[0] if self.form_errors else None


def _texts(value: Any) -> list[str]:
    if value is None or value is False:
        return []
    return ["y"] if value is True else [str(value)]
