"""The languages of mails and pages.

English stands in the code and is the key to the others, which stand in `portal/translations/`. A catalogue is read as
it is written, when it is first needed: there is nothing to compile.
"""

from collections.abc import Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations

FOLDER: Final = Path(__file__).parent / "translations"
LANGUAGES: Final[Mapping[str, str]] = MappingProxyType(
    {"en": "English", "de": "Deutsch", "es": "Español", "fr": "Français", "zh": "简体中文"}
)


@cache
def locale(tag: str) -> Locale:
    """Return the locale of a language tag. English without a country is everybody's: day before month, 24 hours."""
    return Locale.parse("en_GB" if tag == "en" else tag.replace("-", "_"))


def catalogue_file(language: str) -> Path:
    """Return where the words of a language stand."""
    return FOLDER / language / "LC_MESSAGES" / "messages.po"


@cache
def catalogue(language: str) -> NullTranslations:
    """Return the words of a language, such as `de`: English ones where it has none."""
    if not catalogue_file(language).is_file():
        return NullTranslations()
    compiled = BytesIO()
    with catalogue_file(language).open("rb") as file:
        write_mo(compiled, read_po(file, language))
    compiled.seek(0)
    return Translations(compiled)


def translated(tag: str, message: str, **values: Any) -> str:
    """Return an English message in the language of a tag, with `values` put in for `%(name)s`."""
    words = catalogue(locale(tag).language).gettext(message)
    return words % values if values else words


def to_translate(message: str) -> str:
    """Return the message as it is. It marks words that are translated where they are used."""
    return message
