"""Forms that arrived after their session had ended: kept for their account, which saves them after signing in again.

Each CSRF token carries the id of the account whose page it is on, signed. So the account is known without a session,
and nobody else can have a form kept for it.
"""

import json
import secrets
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy import Select, delete, func, select

from portal import config, crypto
from portal.accounts.models import Account, KeptForm, kept_form_context
from portal.accounts.sessions import REMEMBERED_LIFETIME
from portal.database import fast_sql
from portal.extensions import db

MAX_KEPT_FORMS: Final = 5  # of an account
LIFETIME: Final = timedelta(days=1)
KEPT_FORM: Final = "kept_form"  # the field with the id of the kept form that is sent again
NOT_KEPT: Final = ("password", "secret", "code", "csrf_token", KEPT_FORM)  # words in the names of fields


def new_csrf_value(account: Account) -> str:
    """Return what the CSRF tokens of a new session sign."""
    return f"{account.id}-{secrets.token_hex(20)}"


def account_of_token(token: str) -> Account | None:
    """Return the account on whose page this CSRF token was, whether or not its session has ended."""
    serializer = URLSafeTimedSerializer(config.current().secret_keys[::-1], salt="wtf-csrf-token")  # Flask-WTF's
    try:
        value = serializer.loads(token, max_age=int(REMEMBERED_LIFETIME.absolute.total_seconds()))
    except BadSignature:
        return None
    account_id, dash, _ = str(value).partition("-")  # without a dash: of a page that needs no account
    return db.session.get(Account, int(account_id)) if dash else None


def keep(account: Account, path: str, values: Iterable[tuple[str, str]]) -> KeptForm:
    """Keep a form for this account, in place of its oldest one if there are too many. Secrets are not kept."""
    kept = [(name, value) for name, value in values if not any(word in name for word in NOT_KEPT)]
    encrypted = crypto.keyring().encrypt(json.dumps(kept), kept_form_context(account.id))
    form = KeptForm(account_id=account.id, path=path, values_encrypted=encrypted)
    db.session.add(form)
    db.session.flush()
    newest = select(KeptForm.id).where(KeptForm.account_id == account.id).order_by(KeptForm.id.desc())
    db.session.execute(
        delete(KeptForm).where(KeptForm.account_id == account.id, KeptForm.id.not_in(newest.limit(MAX_KEPT_FORMS)))
    )
    db.session.commit()
    return form


def find(account: Account, form_id: int) -> tuple[str, list[list[str]]] | None:
    """Return the path of a form that was kept for this account, and the names and values of its fields."""
    form = db.session.scalar(_kept_for(account).where(KeptForm.id == form_id))
    if form is None:
        return None
    return form.path, json.loads(crypto.keyring().decrypt(form.values_encrypted, kept_form_context(account.id)))


def find_newest(account: Account) -> int | None:
    """Return the id of the form that was kept last for this account."""
    form = db.session.scalar(_kept_for(account).order_by(KeptForm.id.desc()).limit(1))
    return form.id if form else None


def forget(account: Account, form_id: str) -> None:
    """Delete a form that was kept for this account. Its id is what a browser sent, and may be anything."""
    for form in db.session.scalars(_kept_for(account)):
        if str(form.id) == form_id:
            db.session.delete(form)
    db.session.commit()


def _kept_for(account: Account) -> Select[KeptForm]:
    return select(KeptForm).where(KeptForm.account_id == account.id, KeptForm.created_at > func.now() - LIFETIME)


def delete_expired() -> None:
    """Delete the forms that were kept for too long."""
    fast_sql.run("DELETE FROM kept_forms WHERE created_at < now() - %(lifetime)s", {"lifetime": LIFETIME})
