"""The catalogues: each has words for everything that is to be translated, with the same placeholders in them."""

import re
from collections import Counter

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po

from portal.translations.__main__ import messages
from portal.web.i18n import LANGUAGES, catalog, catalog_file, locale_of, translated

OTHERS = sorted(LANGUAGES.keys() - {"en"})
NAMES = re.compile(r"%%\w+%%|%\(\w+\)[sd]|\{\w*\}|`[^`]*`|\]\([^)]*\)|</?\w+[^>]*>")
every_language = pytest.mark.parametrize("language", OTHERS)


@pytest.fixture(scope="module")
def english() -> Catalog:
    """Everything that is to be translated."""
    return messages()


def _read(language: str) -> Catalog:
    with catalog_file(language).open("rb") as file:
        return read_po(file, language)


def _texts(message: Message) -> list[tuple[str, str]]:
    """Return each English text with what stands for it."""
    if isinstance(message.id, str):
        return [(message.id, str(message.string))]
    return [(message.id[min(number, 1)], text) for number, text in enumerate(message.string or ())]


@every_language
def test_nothing_is_missing_and_nothing_is_left_over(english: Catalog, language: str) -> None:
    wanted = {(message.context, message.id) for message in english if message.id}
    filled = (message for message in _read(language) if message.id and all(text for _, text in _texts(message)))
    found = {(message.context, message.id) for message in filled}
    assert found == wanted, "run `make translations`, then put words in"


@every_language
def test_placeholders_are_those_of_the_english_text(language: str) -> None:
    for message in _read(language):
        for source, text in _texts(message) if message.id else ():
            assert Counter(NAMES.findall(text)) == Counter(NAMES.findall(source)), text
            assert text.startswith("\n") == source.startswith("\n")
            assert text.endswith("\n") == source.endswith("\n")
            assert not message.fuzzy


@every_language
def test_the_words_are_others(language: str) -> None:
    found = _read(language)
    same = [message.id for message in found if message.id == message.string]
    assert len(same) < len(found) / 20, same


def test_a_language_is_named_in_its_own_tongue() -> None:
    for language, name in LANGUAGES.items():
        assert (locale_of(language).language_name or "").lower() in name.lower() or language == "zh"


def test_words_are_put_in() -> None:
    assert translated("de-AT", "%(count)s of %(whole)s", count=1, whole=2) == "1 von 2"
    assert translated("pl", "%(count)s of %(whole)s", count=1, whole=2) == "1 of 2"


def test_a_catalogue_is_read_once() -> None:
    assert catalog("de") is catalog("de")
