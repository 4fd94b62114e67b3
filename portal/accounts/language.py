"""The language in which an account reads the portal, and in which Flask-Security's words are."""

from flask import Flask
from flask_babel import refresh
from flask_security.babel import FsDomain

from portal.accounts.models import Account
from portal.extensions import db
from portal.languages import catalogue
from portal.reading import tag


class SignInWords(FsDomain):
    """Flask-Security's own words, except where the portal has others."""

    def gettext(self, string: str, **variables: object) -> str:
        """Return the words in the language of this request."""
        own = catalogue(tag()).gettext(string)
        if own == string:
            return str(super().gettext(string, **variables))  # type: ignore[no-untyped-call]
        return own % variables if variables else own


def init_app(app: Flask) -> None:
    """Let Flask-Security speak the language of the reader."""
    words = SignInWords(app)  # type: ignore[no-untyped-call]
    app.extensions["security"].i18n_domain = words
    app.jinja_env.globals["_fsdomain"] = words.gettext


def choose(account: Account, locale: str | None) -> None:
    """Keep in which language the account reads the portal; None is what its browser asks for."""
    account.locale = locale
    db.session.commit()
    refresh()
