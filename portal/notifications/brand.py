"""A tenant's brand in its mails: a colour and a footer, filled in like values when a mail is written.

So a template is compiled once for each language, and not for each of ten thousand tenants.
"""

import html
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from portal.notifications.colours import DEFAULT, Palette, palette
from portal.notifications.markup import PLACEHOLDER
from portal.notifications.templates import BRAND, Rich, Values, in_text, unlinked

COMMON = ("TENANT_NAME", "DOMAIN", "PBX_WEB_DOMAIN", "DATE_TIME")  # what every mail knows, and a footer may name

_ADDRESS = re.compile(r"https?://[^\s<>\"]*[^\s<>\".,;:!?)\]]")


@dataclass(frozen=True, slots=True)
class Brand:
    """How a tenant's mails look. No colour is the portal's, no footer is none."""

    colour: str | None = None
    footer: str | None = None

    @property
    def palette(self) -> Palette:
        """Its colour, made legible."""
        return palette(self.colour or DEFAULT)

    def values(self, filled: Values) -> Values:
        """Return what goes into a mail's layout. The footer may name those of the mail's values that every mail has."""
        colours = _values(self.colour or DEFAULT)
        if not self.footer:
            return colours
        return {**colours, f"{BRAND}footer": _footer(self.footer, {name: filled[name] for name in COMMON})}


PLAIN = Brand()


@lru_cache(maxsize=16_384)  # a colour each for more tenants than one portal has; a kilobyte each
def _values(colour: str) -> Values:
    return {f"{BRAND}{part}": Rich(shade, shade) for part, shade in palette(colour)._asdict().items()}


def _footer(text: str, values: Values) -> Rich:
    lines = [line for line in text.splitlines() if _has_something_to_say(line, values)]
    return Rich("<br>".join(_in_html(each, values) for each in lines), _filled("\n".join(lines), values))


def _has_something_to_say(line: str, values: Values) -> bool:
    asked = PLACEHOLDER.findall(line)
    return not asked or any(_text(name, values) for name in asked)


def _text(name: str, values: Values) -> str:
    value = values.get(name, "")
    return value.text if isinstance(value, Rich) else unlinked(value)


def _filled(line: str, values: Values) -> str:
    return PLACEHOLDER.sub(lambda found: _text(found[1], values), line)


def _address(written: str, values: Values) -> str:
    return PLACEHOLDER.sub(lambda found: quote(in_text(values.get(found[1], "")), safe=":"), written)


def _in_html(line: str, values: Values) -> str:
    """Return the line with links where an address is written with its scheme."""
    written, start = [], 0
    for found in _ADDRESS.finditer(line):
        address = html.escape(_address(found[0], values))
        written += [html.escape(_filled(line[start : found.start()], values))]
        written += [f'<a href="{address}" class="link" style="color: inherit">{address}</a>']
        start = found.end()
    return "".join([*written, html.escape(_filled(line[start:], values))])
