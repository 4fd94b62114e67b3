"""The languages of emails and pages, and the choice of a page's language.

The English messages are in the code. They are the keys of the other languages' catalogues in `portal/translations/`,
which are read from their .po files when they are first needed: there is no compile step.
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
from flask import Flask, g, has_request_context, request
from flask_babel import Babel, Domain, get_locale
from jinja2 import pass_eval_context
from jinja2.nodes import EvalContext
from markupsafe import Markup

CATALOG_FOLDER: Final = Path(__file__).parents[1] / "translations"
LANGUAGES: Final[Mapping[str, str]] = MappingProxyType(
    {"en": "English", "de": "Deutsch", "es": "Español", "fr": "Français", "zh": "简体中文"}
)


@cache
def locale_of(tag: str) -> Locale:
    """Return the locale of a language tag. English without a country is British: day before month, 24 hours."""
    return Locale.parse("en_GB" if tag == "en" else tag.replace("-", "_"))


def html_language(tag: str) -> str:
    """Return the language tag for HTML (RFC 5646), which also names the script: browsers choose fonts by it."""
    return "zh-Hans" if tag == "zh" else tag


def catalog_file(language: str) -> Path:
    """Return the path of a language's catalogue."""
    return CATALOG_FOLDER / language / "LC_MESSAGES" / "messages.po"


@cache
def catalog(language: str) -> NullTranslations:
    """Return the messages of a language, such as `de`. Messages without a translation stay in English."""
    if not catalog_file(language).is_file():
        return NullTranslations()
    compiled = BytesIO()
    with catalog_file(language).open("rb") as file:
        write_mo(compiled, read_po(file, language))
    compiled.seek(0)
    return Translations(compiled)


def translated(tag: str, message: str, **values: Any) -> str:
    """Return an English message in the language of a tag, with `values` filled in for `%(name)s`."""
    text = catalog(locale_of(tag).language).gettext(message)
    return text % values if values else text


def to_translate(message: str) -> str:
    """Return the message unchanged. This marks it for translation; it is translated where it is used."""
    return message


API_PREFIX: Final = "/api/"  # its answers are documented, in English


class CatalogDomain(Domain):
    """The portal's catalogues, for Flask-Babel."""

    def get_translations(self) -> NullTranslations:
        """Return the messages of the current language."""
        return catalog(current_language())


def init_app(app: Flask) -> None:
    """Show pages in the language of their reader."""
    Babel(app, locale_selector=_select_language).domain_instance = CatalogDomain()  # type: ignore[no-untyped-call]
    app.jinja_env.globals.update(
        _=_translate,
        languages=LANGUAGES,
        html_language=html_language,
        page_language=lambda: html_language(current_language()),
    )


@pass_eval_context
def _translate(context: EvalContext, message: str, /, **values: Any) -> str:
    """Return a template's message in the language of the page, with `values` filled in for `%(name)s`.

    Jinja's own function does the same in four times the time, and a page has hundreds of messages.
    """
    text = catalog(current_language()).gettext(message)
    if context.autoescape:
        text = Markup(text)  # noqa: S704 (a message of the catalogue)
    return text % values if "%" in text else text


def current_language() -> str:
    """Return the language tag of the page (RFC 5646)."""
    locale = get_locale()
    return locale.language if locale else "en"


def _select_language() -> str:
    if not has_request_context() or request.path.startswith(API_PREFIX):
        return "en"
    account = g.get("_login_user")  # if the request guard loaded it: an error page must not query the database
    if account and account.is_authenticated and account.language:
        return str(account.language)
    accepted = (tag.partition("-")[0].lower() for tag in request.accept_languages.values())
    return next((language for language in accepted if language in LANGUAGES), "en")
