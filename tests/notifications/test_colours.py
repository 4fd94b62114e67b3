"""A brand's colour stays legible, whichever it is."""

import colorsys

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from portal.notifications.colours import BLACK, DARK, DEFAULT, ENOUGH, WHITE, colour, contrast, luminance, palette

any_colour = integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


@pytest.mark.parametrize("written", ["#1A73E8", "1a73e8", " #1a73e8 "])
def test_a_colour_has_one_form(written: str) -> None:
    assert colour(written) == "#1a73e8"


def test_three_digits_stand_for_six() -> None:
    assert colour("#1aF") == "#11aaff"


@pytest.mark.parametrize(
    "written", ["", "#", "red", "#12345", "#1234567", "#12345g", "rgb(1,2,3)", "#\u0661\u0662\u0663"]
)
def test_what_is_no_colour_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="#3846c4"):
        colour(written)


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
def test_contrast_is_reckoned_as_the_guidelines_do(one: str, other: str, ratio: float) -> None:
    assert contrast(one, other) == pytest.approx(ratio, abs=0.001)
    assert contrast(other, one) == contrast(one, other)


@given(any_colour)
def test_text_in_any_colour_can_be_read(chosen: str) -> None:
    found = palette(chosen)
    assert contrast(found.ink, WHITE) >= ENOUGH
    assert contrast(found.light, DARK) >= ENOUGH
    assert contrast(found.on, chosen) >= ENOUGH
    assert luminance(found.ink) <= luminance(chosen) <= luminance(found.light)


@given(any_colour)
def test_no_more_is_changed_than_must_be(chosen: str) -> None:
    found = palette(chosen)
    assert found.ink == chosen or contrast(found.ink, WHITE) < ENOUGH + 0.25
    assert found.light == chosen or contrast(found.light, DARK) < ENOUGH + 0.25


def test_a_darker_yellow_is_still_yellow() -> None:
    def hue(shade: str) -> float:
        return colorsys.rgb_to_hsv(*(int(shade[start : start + 2], 16) / 255 for start in (1, 3, 5)))[0]

    assert hue(palette("#ffd400").ink) == pytest.approx(hue("#ffd400"), abs=0.02)
    assert palette("#ffd400").on == BLACK


def test_the_portals_own_accent_is_taken_as_it_is() -> None:
    assert palette(DEFAULT).ink == DEFAULT
    assert palette(DEFAULT).on == WHITE
