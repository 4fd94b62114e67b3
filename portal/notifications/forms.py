"""The form of a tenant's recipients."""

from collections.abc import Sequence

from wtforms import TextAreaField, ValidationError

from portal.errors import Refusal
from portal.forms import PortalForm
from portal.notifications import recipients


class RecipientsForm(PortalForm):
    """The tenant's "Emails of Recipients"."""

    recipients = TextAreaField("Emails of Recipients", description="Separated by semicolons, commas or new lines.")
    parsed: list[str]

    @classmethod
    def showing(cls, addresses: Sequence[str]) -> "RecipientsForm":
        """Return the form with these addresses."""
        return cls(formdata=None, data={"recipients": "\n".join(addresses)})

    def validate_recipients(self, field: TextAreaField) -> None:
        """Read the addresses, or say what is wrong with them."""
        parsed = recipients.parse(field.data or "")
        if isinstance(parsed, Refusal):
            raise ValidationError(parsed.text)
        self.parsed = parsed
