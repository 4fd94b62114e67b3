"""The colours of a tenant's emails are always legible."""

import colorsys

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from portal.mail_templates.branding import (
    BLACK,
    DARK_BACKGROUND,
    DEFAULT_COLOUR,
    MIN_CONTRAST,
    WHITE,
    contrast,
    luminance,
    palette,
    parse_colour,
)

any_colour = integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


@pytest.mark.parametrize("written", ["#1A73E8", "1a73e8", " #1a73e8 "])
def test_colours_are_normalised(written: str) -> None:
    assert parse_colour(written) == "#1a73e8"


def test_three_digits_are_expanded() -> None:
    assert parse_colour("#1aF") == "#11aaff"


@pytest.mark.parametrize(
    "written", ["", "#", "red", "#12345", "#1234567", "#12345g", "rgb(1,2,3)", "#\u0661\u0662\u0663"]
)
def test_invalid_colours(written: str) -> None:
    with pytest.raises(ValueError, match="#3846c4"):
        parse_colour(written)


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        (BLACK, WHITE, 21),
        (WHITE, WHITE, 1),
        ("#777777", WHITE, 4.478),
        ("#ff0000", WHITE, 3.998),
        ("#0000ff", BLACK, 2.444),
    ],
)
def test_contrast_matches_the_guidelines(one: str, other: str, ratio: float) -> None:
    assert contrast(one, other) == pytest.approx(ratio, abs=0.001)
    assert contrast(other, one) == contrast(one, other)


@given(any_colour)
def test_text_is_legible_in_any_colour(chosen: str) -> None:
    found = palette(chosen)
    assert contrast(found.on_white, WHITE) >= MIN_CONTRAST
    assert contrast(found.on_dark, DARK_BACKGROUND) >= MIN_CONTRAST
    assert contrast(found.button_text, chosen) >= MIN_CONTRAST
    assert luminance(found.on_white) <= luminance(chosen) <= luminance(found.on_dark)


@given(any_colour)
def test_colours_change_no_more_than_needed(chosen: str) -> None:
    found = palette(chosen)
    assert found.on_white == chosen or contrast(found.on_white, WHITE) < MIN_CONTRAST + 0.25
    assert found.on_dark == chosen or contrast(found.on_dark, DARK_BACKGROUND) < MIN_CONTRAST + 0.25


def test_a_darker_yellow_is_still_yellow() -> None:
    def hue(shade: str) -> float:
        return colorsys.rgb_to_hsv(*(int(shade[start : start + 2], 16) / 255 for start in (1, 3, 5)))[0]

    assert hue(palette("#ffd400").on_white) == pytest.approx(hue("#ffd400"), abs=0.02)
    assert palette("#ffd400").button_text == BLACK


def test_the_default_colour_is_unchanged() -> None:
    assert palette(DEFAULT_COLOUR).on_white == DEFAULT_COLOUR
    assert palette(DEFAULT_COLOUR).button_text == WHITE
