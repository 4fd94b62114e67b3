"""Masks the password or access token in what a mail server says, in the forms in which a server may repeat it."""

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

MASK = "[…]".encode()
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]{6,}")


class SecretMask:
    """What must not appear in replies, nothing at first.

    Until sign-in is done, parts of encoded secrets are masked too. After it a server repeats text that tenants choose,
    such as recipients' addresses: masking a part of a secret there would reveal that it is one. Then only a whole
    secret is masked, which is no more than a sign-in with it reveals.
    """

    def __init__(self) -> None:
        self._forms: set[bytes] = set()  # in lower case
        self._encoded: set[bytes] = set()  # in lower case
        self._only_whole = False

    def add_password(self, password: str) -> None:
        """Mask a password in all forms of it."""
        self._forms |= {form.lower() for form in _forms(password) if form}

    def add_token(self, token: str) -> None:
        """Mask an access token in all forms of it, and in parts until sign-in is done: servers cut what is so long."""
        self.add_password(token)
        self._encoded |= {token.lower().encode(), base64.b64encode(token.encode()).lower()}

    def add_response(self, response: bytes) -> str:
        """Mask a response of a sign-in mechanism, and return it as it is sent."""
        encoded = base64.b64encode(response)
        if encoded:
            self._encoded.add(encoded.lower())
        return encoded.decode()

    def end_sign_in(self) -> None:
        """From now on, mask only whole secrets."""
        self._only_whole = True

    def apply(self, text: bytes) -> str:
        """Return the text, decoded, with "[…]" in place of secrets."""
        folded = text.lower()
        found = [form for form in (*self._forms, *self._encoded) if form in folded]
        if found:
            any_form = b"|".join(map(re.escape, sorted(found, key=len, reverse=True)))
            pattern = rb"(?<!\w)(?:%b)(?!\w)" if self._only_whole else rb"%b"
            text = re.sub(pattern % any_form, MASK, text, flags=re.IGNORECASE)
        if self._encoded and not self._only_whole:
            text = _BASE64.sub(self._mask_part, text)
        return text.decode(errors="replace")

    def _mask_part(self, match: re.Match[bytes]) -> bytes:
        part = match[0].lower()
        return MASK if any(part in encoded for encoded in self._encoded) else match[0]


def _forms(password: str) -> Iterator[bytes]:
    """Yield the password as servers write it: in UTF-8 and Latin-1, escaped for HTML, URLs and JSON, and in Base64."""
    for text in (password, password.upper(), password.lower()):  # outside ASCII too; "ß" becomes "SS"
        escaped = (text, html.escape(text), html.escape(text, quote=False), json.dumps(text)[1:-1])
        yield from (form.encode("ascii", "xmlcharrefreplace") for form in escaped)
        for encoding in ("utf-8", "latin-1"):
            yield from (form.encode(encoding, "xmlcharrefreplace") for form in escaped)
            yield from (quote(text, safe, encoding, "replace").encode() for safe in ("/", ""))
            yield quote_plus(text, "", encoding, "replace").encode()
            encoded = base64.b64encode(text.encode(encoding, "replace"))
            yield from (encoded, encoded.rstrip(b"="))
