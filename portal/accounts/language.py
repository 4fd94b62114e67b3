"""The language of pages: the account's choice, else what the browser asks for, else English."""

from babel.support import NullTranslations
from flask import Flask, g, has_request_context, request
from flask_babel import Domain, get_locale, refresh
from flask_security.babel import FsDomain

from portal.accounts.models import Account
from portal.extensions import babel, db
from portal.languages import LANGUAGES, catalogue

OF_PROGRAMS = "/api/"  # whose answers are documented, in English


class Words(Domain):
    """The portal's catalogues, for Flask-Babel."""

    def get_translations(self) -> NullTranslations:
        """Return the words of the language of this request."""
        return catalogue(tag())


class SignInWords(FsDomain):
    """Flask-Security's own words, except where the portal has others."""

    def gettext(self, string: str, **variables: object) -> str:
        """Return the words in the language of this request."""
        own = catalogue(tag()).gettext(string)
        if own == string:
            return str(super().gettext(string, **variables))  # type: ignore[no-untyped-call]
        return own % variables if variables else own


def init_app(app: Flask) -> None:
    """Let pages speak the language of their reader."""
    babel.init_app(app, locale_selector=select)
    babel.domain_instance = Words()
    words = SignInWords(app)  # type: ignore[no-untyped-call]
    app.extensions["security"].i18n_domain = words
    app.jinja_env.globals.update(_fsdomain=words.gettext, languages=LANGUAGES, page_language=tag)


def select() -> str:
    """Return the locale of this request, as Flask-Security has its words: Chinese with its script and country."""
    chosen = _chosen()
    return "zh_Hans_CN" if chosen == "zh" else chosen


def tag() -> str:
    """Return the language tag of the page (RFC 5646)."""
    locale = get_locale()
    return locale.language if locale else "en"


def choose(account: Account, locale: str | None) -> None:
    """Keep in which language the account reads the portal; None is what its browser asks for."""
    account.locale = locale
    db.session.commit()
    refresh()


def _chosen() -> str:
    if not has_request_context() or request.path.startswith(OF_PROGRAMS):
        return "en"
    account = g.get("_login_user")  # only where the door has found it: an error page must not ask the database again
    if account and account.is_authenticated and account.locale:
        return str(account.locale)
    return request.accept_languages.best_match(LANGUAGES, "en")
