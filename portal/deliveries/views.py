"""The delivery log of a tenant."""

from uuid import UUID

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from portal.deliveries import log as delivery_log
from portal.deliveries.log import LastSend
from portal.notifications.digest import EVERY_KIND
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace
from portal.ui import respond

blueprint = Blueprint("deliveries", __name__)


@blueprint.get("/tenants/<domain>/deliveries")
def log(domain: str) -> ResponseReturnValue:
    """Show what was sent to whom, newest first."""
    tenant = workspace(domain)
    before = request.args.get("before", type=UUID)
    shown = delivery_log.page(before)
    return respond(
        "deliveries/log.html", "deliveries/_list.html", tenant=tenant, shown=shown, before=before, kinds=EVERY_KIND
    )


@blueprint.app_template_global("last_send")
def last_send(_tenant: Tenant) -> LastSend | None:
    """Return the most recent attempt of the tenant whose workspace is open, for the status of its mail server."""
    return delivery_log.last_send()
