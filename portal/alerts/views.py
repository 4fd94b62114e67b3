"""Choosing alerts: the kinds that an account gets, and whether a tenant is told when its PBX is silent."""

from flask import Blueprint, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from portal.accounts.access import current_account, kept_as
from portal.alerts import preferences, silence
from portal.tenants.workspace import workspace
from portal.web.responses import respond

blueprint = Blueprint("alerts", __name__)


@blueprint.post("/account/alerts")
@kept_as(".choose_kinds")
def choose_kinds() -> ResponseReturnValue:
    """Save which alerts the account gets by email."""
    preferences.choose(current_account(), request.form.getlist("kinds"))
    flash(gettext("Your choice of alerts has been saved."), "success")
    return redirect(url_for("account.security", _anchor="alerts"), 303)


@blueprint.post("/tenants/<domain>/connect/silence")
@kept_as(".watch_silence")
def watch_silence(domain: str) -> ResponseReturnValue:
    """Turn on or off that administrators are told when the PBX is silent."""
    tenant = workspace(domain)
    silence.watch(tenant, on="enabled" in request.form)
    if request.htmx:  # type: ignore[attr-defined]
        return respond("pbx/connect.html", "alerts/_silence.html", tenant=tenant)
    return redirect(url_for("connect.show", domain=domain, _anchor="silence"), 303)
