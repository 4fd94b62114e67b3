"""An example email: text, HTML and an inline image."""

import base64
from email.message import EmailMessage

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def mail(html: str) -> EmailMessage:
    """Return an email with this HTML, which may show the image `cid:qr@x.example`."""
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "Hello & welcome", "Acme <a@x.example>", "b@x.example"
    message.set_content("The text alternative")
    message.add_alternative(html, subtype="html")
    body = message.get_body(("html",))
    assert isinstance(body, EmailMessage)
    body.add_related(PNG, "image", "png", cid="<qr@x.example>")
    return message
