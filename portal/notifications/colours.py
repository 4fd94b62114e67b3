"""A brand's colour made legible: contrast as the Web Content Accessibility Guidelines 2.2 reckon it (1.4.3).

A colour is `#rrggbb`, lower case.
"""

import re
from collections.abc import Callable, Sequence
from math import ceil, floor
from typing import Final, NamedTuple

from flask_babel import gettext

DEFAULT: Final = "#3846c4"  # the portal's own accent
WHITE: Final = "#ffffff"
BLACK: Final = "#000000"
DARK: Final = "#1c222b"  # a mail's paper where the reader's screen is dark
ENOUGH: Final = 4.5  # the least contrast of text, to which the guidelines bind

_HEX = re.compile(r"#?([0-9a-f]{6}|[0-9a-f]{3})", re.IGNORECASE)
_WEIGHTS = (0.2126, 0.7152, 0.0722)  # of red, green and blue in luminance


class Palette(NamedTuple):
    """A brand's colour, text on it, and what text in that colour takes on white and on dark paper."""

    colour: str
    on: str
    ink: str
    light: str


def colour(text: str) -> str:
    """Return a colour that was written as "#1a73e8", "1A73E8" or "#17e" in its one form.

    Raises:
        ValueError: it is none, with a sentence that says so.
    """
    found = _HEX.fullmatch(text.strip())
    if found is None:
        raise ValueError(gettext("Write the colour like #3846c4: six digits from 0 to 9 and a to f."))
    digits = found[1] if len(found[1]) == 6 else "".join(digit * 2 for digit in found[1])
    return f"#{digits.lower()}"


def luminance(colour: str) -> float:
    """Return the relative luminance, from 0 (black) to 1 (white)."""
    return _luminance(_linear(colour))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def palette(colour: str) -> Palette:
    """Return what a mail needs of a colour; `on` is black or white, whichever is read better."""
    on = max((WHITE, BLACK), key=lambda text: contrast(colour, text))
    return Palette(colour, on, ink=_darkened(colour), light=_lightened(colour))


def _darkened(colour: str) -> str:
    """Return the colour, or so much of it that it can be read on white."""
    most = 1.05 / ENOUGH - 0.05
    shade, has = _linear(colour), luminance(colour)
    return colour if has <= most else _hex([each * most / has for each in shade], floor)


def _lightened(colour: str) -> str:
    """Return the colour, or as much white with it that it can be read on dark paper."""
    least = ENOUGH * (luminance(DARK) + 0.05) - 0.05
    shade, has = _linear(colour), luminance(colour)
    if has >= least:
        return colour
    white = (least - has) / (1 - has)
    return _hex([each + white * (1 - each) for each in shade], ceil)


def _linear(colour: str) -> Sequence[float]:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def _luminance(linear: Sequence[float]) -> float:
    return sum(weight * part for weight, part in zip(_WEIGHTS, linear, strict=True))


def _hex(linear: Sequence[float], rounded: Callable[[float], int]) -> str:
    parts = [12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055 for part in linear]
    return "#" + "".join(f"{min(rounded(part * 255), 255):02x}" for part in parts)
