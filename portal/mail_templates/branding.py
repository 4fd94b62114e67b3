"""A tenant's branding in its emails: a footer, and a colour with shades that are always legible (WCAG 2.2, 1.4.3).

They are filled in like the values of an event, so that a template is compiled per language and not per tenant.
"""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import Final, NamedTuple
from urllib.parse import quote

from flask_babel import gettext

from portal.events.values import COMMON_PLACEHOLDERS, RichValue, Values, plain_text, prevent_autolinks
from portal.extensions import db
from portal.mail_templates.markdown import BRANDING_PREFIX, PLACEHOLDER
from portal.tenants.models import Tenant

DEFAULT_COLOUR: Final = "#3846c4"  # the portal's accent colour
WHITE: Final = "#ffffff"
BLACK: Final = "#000000"
DARK_BACKGROUND: Final = "#1c222b"  # of an email in dark mode
MIN_CONTRAST: Final = 4.5  # of text, required by the guidelines

_HEX = re.compile(r"#?([0-9a-f]{6}|[0-9a-f]{3})", re.IGNORECASE)
_WEIGHTS = (0.2126, 0.7152, 0.0722)  # of red, green and blue in the luminance

_URL = re.compile(r"https?://[^\s<>\"]*[^\s<>\".,;:!?)\]]")


class Palette(NamedTuple):
    """A branding colour, the colour of text on it, and shades of it for text on white and on the dark background."""

    colour: str
    button_text: str
    on_white: str
    on_dark: str


@dataclass(frozen=True, slots=True)
class Branding:
    """The colour and the footer of a tenant's emails. Without a colour, the portal's own is used."""

    colour: str | None = None
    footer: str | None = None

    @property
    def palette(self) -> Palette:
        """The colour and its legible shades."""
        return palette(self.colour or DEFAULT_COLOUR)

    def template_values(self, values: Values) -> Values:
        """Return the values for an email's layout. The footer may use those of `values` that every email has."""
        colours = _palette_values(self.colour or DEFAULT_COLOUR)
        if not self.footer:
            return colours
        footer = _footer_value(self.footer, {name: values[name] for name in COMMON_PLACEHOLDERS if name in values})
        return {**colours, f"{BRANDING_PREFIX}footer": footer}


DEFAULT_BRANDING = Branding()


def save_branding(tenant: Tenant, sender_name: str, colour: str, footer: str, language: str) -> None:
    """Save how the tenant's emails look. The portal's default colour is saved as no colour."""
    tenant.sender_name = sender_name or None
    tenant.brand_color = None if colour in ("", DEFAULT_COLOUR) else colour
    tenant.email_footer = footer or None
    tenant.language = language
    db.session.commit()


@lru_cache(maxsize=16_384)  # more than the expected number of tenants; one kilobyte each
def _palette_values(colour: str) -> Values:
    return {f"{BRANDING_PREFIX}{part}": RichValue(shade, shade) for part, shade in palette(colour)._asdict().items()}


def _footer_value(text: str, values: Values) -> RichValue:
    lines = [line for line in text.splitlines() if _is_visible(line, values)]
    return RichValue("<br>".join(_line_html(line, values) for line in lines), _fill("\n".join(lines), values))


def _is_visible(line: str, values: Values) -> bool:
    """Return whether a line has no placeholders, or one with a value."""
    names = PLACEHOLDER.findall(line)
    return not names or any(_value_text(name, values) for name in names)


def _value_text(name: str, values: Values) -> str:
    value = values.get(name, "")
    return value.text if isinstance(value, RichValue) else prevent_autolinks(value)


def _fill(line: str, values: Values) -> str:
    return PLACEHOLDER.sub(lambda match: _value_text(match[1], values), line)


def _fill_url(url: str, values: Values) -> str:
    return PLACEHOLDER.sub(lambda match: quote(plain_text(values.get(match[1], "")), safe=":"), url)


def _line_html(line: str, values: Values) -> str:
    """Return the line as HTML, with links for URLs that are written with their scheme."""
    parts, start = [], 0
    for match in _URL.finditer(line):
        url = html.escape(_fill_url(match[0], values))
        parts += [html.escape(_fill(line[start : match.start()], values))]
        parts += [f'<a href="{url}" class="link" style="color: inherit">{url}</a>']
        start = match.end()
    return "".join([*parts, html.escape(_fill(line[start:], values))])


def parse_colour(text: str) -> str:
    """Return a colour like "#1a73e8", "1A73E8" or "#17e" in its normal form; a ValueError says what is wrong."""
    match = _HEX.fullmatch(text.strip())
    if match is None:
        raise ValueError(gettext("Write the colour like #3846c4: six digits from 0 to 9 and a to f."))
    digits = match[1] if len(match[1]) == 6 else "".join(digit * 2 for digit in match[1])
    return f"#{digits.lower()}"


def luminance(colour: str) -> float:
    """Return the relative luminance, from 0 (black) to 1 (white)."""
    return sum(weight * part for weight, part in zip(_WEIGHTS, _linear(colour), strict=True))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def palette(colour: str) -> Palette:
    """Return the colours of an email; `button_text` is black or white, whichever has more contrast."""
    button_text = max((WHITE, BLACK), key=lambda text: contrast(colour, text))
    return Palette(colour, button_text, on_white=_darken(colour), on_dark=_lighten(colour))


def _darken(colour: str) -> str:
    """Return the colour, darkened as far as needed for text on white."""
    max_luminance = 1.05 / MIN_CONTRAST - 0.05
    current = luminance(colour)
    if current <= max_luminance:
        return colour
    return _hex([part * max_luminance / current for part in _linear(colour)], floor)


def _lighten(colour: str) -> str:
    """Return the colour, mixed with as much white as needed for text on the dark background."""
    min_luminance = MIN_CONTRAST * (luminance(DARK_BACKGROUND) + 0.05) - 0.05
    current = luminance(colour)
    if current >= min_luminance:
        return colour
    white = (min_luminance - current) / (1 - current)
    return _hex([part + white * (1 - part) for part in _linear(colour)], ceil)


def _linear(colour: str) -> Sequence[float]:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def _hex(linear: Sequence[float], round_part: Callable[[float], int]) -> str:
    parts = [12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055 for part in linear]
    return "#" + "".join(f"{min(round_part(part * 255), 255):02x}" for part in parts)
