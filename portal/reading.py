"""The language of a page: the account's choice, else what the browser asks for, else English."""

from babel.support import NullTranslations
from flask import Flask, g, has_request_context, request
from flask_babel import Babel, Domain, get_locale

from portal.languages import LANGUAGES, catalogue

OF_PROGRAMS = "/api/"  # whose answers are documented, in English


class Words(Domain):
    """The portal's catalogues, for Flask-Babel."""

    def get_translations(self) -> NullTranslations:
        """Return the words of the language of this request."""
        return catalogue(tag())


def init_app(app: Flask) -> None:
    """Let pages speak the language of their reader."""
    Babel(app, locale_selector=select).domain_instance = Words()  # type: ignore[no-untyped-call]
    app.jinja_env.globals.update(languages=LANGUAGES, page_language=tag)


def select() -> str:
    """Return the locale of this request, as Flask-Security has its words: Chinese with its script and country."""
    chosen = _chosen()
    return "zh_Hans_CN" if chosen == "zh" else chosen


def tag() -> str:
    """Return the language tag of the page (RFC 5646)."""
    locale = get_locale()
    return locale.language if locale else "en"


def _chosen() -> str:
    if not has_request_context() or request.path.startswith(OF_PROGRAMS):
        return "en"
    account = g.get("_login_user")  # only where the door has found it: an error page must not ask the database again
    if account and account.is_authenticated and account.locale:
        return str(account.locale)
    wanted = (each.partition("-")[0].lower() for each in request.accept_languages.values())
    return next((each for each in wanted if each in LANGUAGES), "en")
