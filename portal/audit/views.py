"""The pages of the audit trail: a tenant's entries, and all entries for system administrators."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any
from uuid import UUID

from flask import Blueprint, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from werkzeug.exceptions import BadRequest

from portal.accounts.access import current_account
from portal.audit import formatting, queries
from portal.audit.formatting import ValueLabels
from portal.audit.forms import AuditFilterForm
from portal.audit.models import AuditEntry
from portal.errors import Refusal
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.mail_servers.forms import MailServerForm
from portal.mail_servers.oauth.identity_providers import PROVIDERS_BY_KEY, GrantType
from portal.mail_templates.forms import TemplateForm
from portal.notifications.views import AUDIENCES
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.tenants.views import respond_in_workspace
from portal.tenants.workspace import workspace_or_system
from portal.web import csv_export, pagination
from portal.web.i18n import LANGUAGES
from portal.web.pagination import Page

blueprint = Blueprint("audit", __name__)
SYSTEM_TIME_ZONE = "UTC"
CSV_COLUMNS = (
    "created_at",
    "tenant",
    "actor",
    "actor_account_id",
    "ip_address",
    "action",
    "subject",
    "what",
    "changes",
    "id",
)


@blueprint.get("/tenants/<domain>/audit")
@blueprint.get("/system/audit")
def trail(domain: str | None = None) -> ResponseReturnValue:
    """Show the entries of a tenant, or those of the system and of all tenants."""
    tenant, form, before = workspace_or_system(domain), _form(domain), request.args.get("before", type=UUID)
    shown = _filtered_tenant(tenant, form)
    is_valid = not form.errors
    time_zone = tenant.time_zone if tenant else SYSTEM_TIME_ZONE
    page: Page[AuditEntry, UUID] = Page(())
    if is_valid:
        owner = shown.id if shown else None
        page = queries.page(owner, form.filters(time_zone), before, pagination.PAGE_SIZE)
    filters: dict[str, Any] = {name: value for name, value in request.args.items() if value and name in form}
    labels = _value_labels()
    context = {
        "form": form,
        "entries": [(entry, formatting.format_entry(entry, labels)) for entry in page.rows],
        "actors": sorted({entry.actor for entry in page.rows}),
        "time_zone": time_zone,
        "is_filtered": bool(filters),
        "domains": _domains(page),
        "unfiltered_url": url_for("audit.trail", domain=domain),
        "csv_url": url_for("audit.csv", domain=domain, **filters),
        "newest_url": url_for("audit.trail", domain=domain, **filters) if before else None,
        "older_url": url_for("audit.trail", domain=domain, **filters, before=page.next_key) if page.next_key else None,
    }
    status = 200 if is_valid else 422
    return respond_in_workspace(tenant, "audit/page.html", "audit/_trail.html", status, **context)


@blueprint.get("/tenants/<domain>/audit.csv")
@blueprint.get("/system/audit.csv")
def csv(domain: str | None = None) -> ResponseReturnValue:
    """Download the same entries as CSV."""
    tenant, form = workspace_or_system(domain), _form(domain)
    shown = _filtered_tenant(tenant, form)
    if form.errors:
        raise BadRequest
    tenant_id = shown.id if shown else None
    filters, labels = form.filters(tenant.time_zone if tenant else SYSTEM_TIME_ZONE), _value_labels()

    def read_page(before: UUID | None) -> Page[Sequence[Any], UUID]:
        page = queries.page(tenant_id, filters, before, csv_export.BATCH_SIZE)
        domains = _domains(page)
        return Page([_cells(entry, domains, labels) for entry in page.rows], page.next_key)

    filename = f"audit-trail-{shown.domain}.csv" if shown else "audit-trail.csv"
    return csv_export.download(current_account().id, filename, CSV_COLUMNS, read_page)


def _filtered_tenant(tenant: Tenant | None, form: AuditFilterForm) -> Tenant | None:
    """Return whose entries to show: the tenant's whose page it is, or that of the filter. None: everybody's.

    Errors in the form are at its fields afterwards, also that there is no such tenant.
    """
    if not form.validate() or tenant is not None or not form.tenant.data:
        return tenant
    found = tenant_service.find(form.tenant.data)
    if found is None:
        form.refuse(Refusal("tenant", gettext("There is no tenant with this SIP domain.")))
    return found


def _domains(page: Page[AuditEntry, UUID]) -> Mapping[int, str]:
    return tenant_service.domains({entry.tenant_id for entry in page.rows if entry.tenant_id})


def _cells(entry: AuditEntry, domains: Mapping[int, str], labels: ValueLabels) -> Sequence[Any]:
    """Return the entry's cells, in the order of `CSV_COLUMNS`."""
    return (
        entry.created_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        domains.get(entry.tenant_id, str(entry.tenant_id)) if entry.tenant_id else "",
        entry.actor,
        entry.actor_account_id,
        entry.ip_address,
        entry.action,
        entry.subject,
        formatting.sentence(formatting.format_entry(entry, labels)),
        json.dumps(entry.changes, ensure_ascii=False),
        entry.id,
    )


def _value_labels() -> ValueLabels:
    """Return what the pages of the other rooms call the values of their fields."""
    server, template = (
        MailServerForm(formdata=None, meta={"csrf": False}),
        TemplateForm(formdata=None, meta={"csrf": False}),
    )
    choices = {field.name: field for field in (server.provider, server.encryption, server.auth_mode, template.format)}
    labels = {name: {value: str(label) for value, label, *_ in field.iter_choices()} for name, field in choices.items()}
    event_types = {name: gettext(event_type.label) for name, event_type in ALL_EVENT_TYPES.items()}
    ways = {
        GrantType.AUTHORIZATION_CODE: gettext("Sign-in of a person"),
        GrantType.CLIENT_CREDENTIALS: gettext("App without a person"),
        GrantType.SERVICE_ACCOUNT: gettext("Service account"),
    }
    labels["provider"] |= {key: provider.label for key, provider in PROVIDERS_BY_KEY.items()}
    labels |= {"event_type": event_types, "events": event_types, "language": dict(LANGUAGES), "grant_type": ways}
    return labels | {"audience": {audience: gettext(label) for audience, label in AUDIENCES.items()}}


def _form(domain: str | None) -> AuditFilterForm:
    form = AuditFilterForm(formdata=request.args, meta={"csrf": False})
    if domain is not None:
        del form.tenant
    return form
