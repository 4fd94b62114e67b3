"""Importing tenants, administrators and recipients from a CSV file: compared first, then written all together or not.

A row is about the tenant with its SIP domain. An empty cell leaves a setting as it is. Administrators and recipients
are added and never removed, so that the same file imported again changes nothing.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from flask_babel import gettext
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from portal.accounts.models import ADMINISTRATOR, Account, Membership
from portal.accounts.service import lock_access
from portal.audit.log import batched
from portal.database import clock
from portal.database.scope import every_tenant
from portal.errors import Refusal
from portal.extensions import db
from portal.notifications import recipients as recipient_service
from portal.notifications.models import Recipient
from portal.notifications.recipients import MAX_RECIPIENTS
from portal.people.invitations import MAX_OPEN
from portal.people.models import Invitation
from portal.signals import notify_settings_changed
from portal.tenants.forms import TenantForm, time_zones
from portal.tenants.models import Tenant
from portal.transfer import csv_reader
from portal.transfer.csv_reader import BadLine, Row
from portal.transfer.invitation_emails import Invited, invite_later
from portal.web.forms import normalize_domain, normalize_email
from portal.web.i18n import LANGUAGES
from portal.web.pasted_emails import split_emails

SETTINGS: Final = ("name", "time_zone", "language", "realm")
MAX_EMAILS: Final = 5_000  # of administrators and recipients in a file


@dataclass(slots=True)
class _Wanted:
    """What the rows about one tenant say, and in which line each setting was found first."""

    line: int
    settings: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    administrators: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Change:
    """What the import does to a tenant: settings as [old, new], and the email addresses that it adds.

    `promoted` are viewers who become administrators.
    """

    line: int
    domain: str
    name: str
    is_new: bool
    settings: Mapping[str, tuple[str | None, str]]
    invited: Sequence[str]
    promoted: Sequence[str]
    recipients: Sequence[str]

    @property
    def is_empty(self) -> bool:
        """Whether the tenant is as the file says."""
        return not (self.is_new or self.settings or self.invited or self.promoted or self.recipients)


@dataclass(frozen=True, slots=True)
class CsvPreview:
    """What an import would do, by tenant in the order of the file, and what is wrong in the file.

    `version` tells it from a preview with other changes.
    """

    added: Sequence[Change]
    changed: Sequence[Change]
    unchanged: Sequence[Change]
    bad: Sequence[BadLine]
    ignored_columns: Sequence[str]

    @property
    def email_count(self) -> int:
        """How many people are invited by email."""
        return sum(len(change.invited) for change in (*self.added, *self.changed))

    @property
    def can_be_imported(self) -> bool:
        """Whether there is something to import, and nothing wrong."""
        return not self.bad and bool(self.added or self.changed)

    @property
    def version(self) -> str:
        """A digest of the changes."""
        changes = [asdict(change) for change in (*self.added, *self.changed)]
        return hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()


def preview(content: bytes) -> CsvPreview | Refusal:
    """Compare a file with what is stored, or return why it cannot be read. Nothing is written."""
    table = csv_reader.read(content)
    if isinstance(table, Refusal):
        return table
    bad = list(table.bad)
    wanted = _merge(table.rows, bad)
    if sum(len(entry.administrators) + len(entry.recipients) for entry in wanted.values()) > MAX_EMAILS:
        return Refusal("text", gettext("The file has too many email addresses: use at most %(most)s.", most=MAX_EMAILS))
    changes = _compare(wanted, bad)
    return CsvPreview(
        added=[change for change in changes if change.is_new],
        changed=[change for change in changes if not (change.is_new or change.is_empty)],
        unchanged=[change for change in changes if change.is_empty],
        bad=sorted(bad, key=lambda entry: entry.line),
        ignored_columns=table.ignored,
    )


def apply(content: bytes, version: str, *, by: Account | None) -> CsvPreview | Refusal:
    """Import a file whose preview had this version, and return what was done. None is the command line.

    The file is compared again, while others cannot change what it is about. If the changes are others by now, nothing
    is written.
    """
    compared = preview(content)
    if isinstance(compared, Refusal):
        return compared
    lock_access(*filter(None, [by]))
    with every_tenant():
        query = select(Tenant).where(Tenant.domain.in_([change.domain for change in compared.changed]))
        locked = query.order_by(Tenant.id).with_for_update(key_share=True).execution_options(populate_existing=True)
        tenants = {tenant.domain: tenant for tenant in db.session.scalars(locked)}
        compared = preview(content)  # as it is now that they are locked
        if isinstance(compared, Refusal):
            return compared
        is_as_seen = compared.version == version and compared.can_be_imported
        if is_as_seen:
            savepoint = db.session.begin_nested()
            try:
                _write([*compared.added, *compared.changed], tenants, by)
            except IntegrityError:  # someone has just added one of the tenants
                savepoint.rollback()
                is_as_seen = False
        db.session.commit()
    text = gettext("Tenants have changed since the preview. Nothing was imported. Check the new preview.")
    return compared if is_as_seen else Refusal("", text)


def _merge(rows: Iterable[Row], bad: list[BadLine]) -> dict[str, _Wanted]:
    """Return what the rows say by SIP domain. Several rows may be about a tenant, if they agree."""
    wanted: dict[str, _Wanted] = {}
    for row in rows:
        try:
            _read_row(row, wanted)
        except ValueError as error:
            bad.append(BadLine(row.line, str(error)))
    return wanted


def _read_row(row: Row, wanted: dict[str, _Wanted]) -> None:
    """Add what a row says. ValueError: what is wrong in it, as a sentence."""
    if "domain" not in row.cells:
        raise ValueError(gettext("The SIP domain is missing."))
    administrators = [normalize_email(email).lower() for email in split_emails(row.cells.get("administrators", ""))]
    recipients: list[str] = []
    if "recipients" in row.cells:
        parsed = recipient_service.parse_emails(row.cells["recipients"])
        if isinstance(parsed, Refusal):
            raise ValueError(parsed.text)
        recipients = parsed
    entry = wanted.setdefault(normalize_domain(row.cells["domain"]), _Wanted(row.line))
    for name in SETTINGS:
        value = _normalized(name, row.cells.get(name, ""))
        if value and entry.settings.setdefault(name, value) != value:
            line = entry.lines[name]
            raise ValueError(gettext("“%(column)s” differs from line %(line)s.", column=name, line=line))
        if value:
            entry.lines.setdefault(name, row.line)
    _extend(entry.administrators, administrators)
    _extend(entry.recipients, recipients)


def _normalized(name: str, value: str) -> str:
    """Return a setting as the portal writes it, where people write it in other ways too."""
    if name == "time_zone":
        return next((zone for zone in time_zones() if zone.casefold() == value.casefold()), value)
    if name == "language":
        tag = value.replace("_", "-").partition("-")[0].lower()
        return next((tag for tag, label in LANGUAGES.items() if label.casefold() == value.casefold()), tag)
    return value


def _extend(emails: list[str], more: Iterable[str]) -> None:
    known = {email.lower() for email in emails}
    for email in more:
        if email.lower() not in known:
            known.add(email.lower())
            emails.append(email)


@dataclass(frozen=True, slots=True)
class _Stored:
    """What is stored about the tenants of a file."""

    tenants: Mapping[str, Tenant]
    roles: Mapping[int | None, Mapping[str, str]]  # by tenant, then by email
    invited: Mapping[int | None, Mapping[str, str]]  # likewise: the roles of open invitations
    recipients: Mapping[int | None, Collection[str]]


def _compare(wanted: Mapping[str, _Wanted], bad: list[BadLine]) -> Sequence[Change]:
    stored, changes = _load(list(wanted)), []
    for domain, entry in wanted.items():
        try:
            changes.append(_change(domain, entry, stored))
        except ValueError as error:
            bad.append(BadLine(entry.line, str(error)))
    return changes


def _load(domains: Sequence[str]) -> _Stored:
    query = select(Tenant).where(Tenant.domain.in_(domains))
    with every_tenant():
        tenants = db.session.scalars(query.execution_options(populate_existing=True)).all()
        ids = [tenant.id for tenant in tenants]
        members = (
            select(Membership.tenant_id, Account.email, Membership.role)
            .join(Account, Account.id == Membership.account_id)
            .where(Membership.tenant_id.in_(ids))
        )
        is_open = Invitation.expires_at > clock.now()
        open_ones = select(Invitation.tenant_id, Invitation.email, Invitation.role).where(is_open)
        existing = select(Recipient.tenant_id, Recipient.email).where(Recipient.tenant_id.in_(ids))
        roles, invited = defaultdict[int | None, dict[str, str]](dict), defaultdict[int | None, dict[str, str]](dict)
        for tenant_id, email, role in db.session.execute(members):
            roles[tenant_id][email] = role
        for owner, email, role in db.session.execute(open_ones.where(Invitation.tenant_id.in_(ids))):
            invited[owner][email] = role
        recipients = defaultdict[int | None, list[str]](list)
        for tenant_id, email in db.session.execute(existing):
            recipients[tenant_id].append(email.lower())
    return _Stored({tenant.domain: tenant for tenant in tenants}, roles, invited, recipients)


def _change(domain: str, entry: _Wanted, stored: _Stored) -> Change:
    """Return what the import does to a tenant. ValueError: why it cannot, as a sentence."""
    tenant = stored.tenants.get(domain)
    if tenant is not None and tenant.deletion_requested_at:
        raise ValueError(gettext("%(name)s is being deleted.", name=tenant.name))
    old = {name: getattr(tenant, name) for name in SETTINGS} if tenant else {}
    settings = _validated(domain, {**old, **entry.settings}, tenant)
    key = tenant.id if tenant else None
    roles, invited = stored.roles.get(key, {}), stored.invited.get(key, {})
    existing = stored.recipients.get(key, ())
    new = [email for email in entry.recipients if email.lower() not in existing]
    if len(existing) + len(new) > MAX_RECIPIENTS:
        raise ValueError(gettext("A tenant has at most %(most)s recipients.", most=MAX_RECIPIENTS))
    to_invite = [email for email in entry.administrators if email not in roles and invited.get(email) != ADMINISTRATOR]
    if len(invited) + len(to_invite) > MAX_OPEN:
        raise ValueError(gettext("There are too many open invitations. Withdraw some first."))
    return Change(
        line=entry.line,
        domain=domain,
        name=settings["name"],
        is_new=tenant is None,
        settings={name: (old.get(name), value) for name, value in settings.items() if (old.get(name) or "") != value},
        invited=to_invite,
        promoted=[email for email in entry.administrators if roles.get(email, ADMINISTRATOR) != ADMINISTRATOR],
        recipients=new,
    )


def _validated(domain: str, settings: Mapping[str, str | None], tenant: Tenant | None) -> dict[str, str]:
    """Return a tenant's settings as the form of its page accepts them. ValueError: why it does not."""
    form = TenantForm.from_values({"time_zone": "UTC", "language": "en", **settings, "domain": domain}, obj=tenant)
    if not form.validate():
        raise ValueError(form.first_error or "")
    return {name: form[name].data or "" for name in SETTINGS}


def _write(changes: Collection[Change], tenants: Mapping[str, Tenant], by: Account | None) -> None:
    """Write the changes to all tenants with few statements."""
    written = [(change, tenants.get(change.domain) or Tenant(domain=change.domain)) for change in changes]
    with batched():
        for change, tenant in written:
            for name, (_, value) in change.settings.items():
                setattr(tenant, name, value)
            db.session.add(tenant)
        db.session.flush()
        invited = [Invited(tenant, email, ADMINISTRATOR) for change, tenant in written for email in change.invited]
        invite_later(invited, by=by)
        _promote({(tenant.id, email) for change, tenant in written for email in change.promoted})
        _add_recipients({tenant: change.recipients for change, tenant in written if change.recipients})
        for change, tenant in written:
            if change.recipients and not change.is_new:
                notify_settings_changed(tenant.id)


def _promote(members: Collection[tuple[int, str]]) -> None:
    query = select(Membership, Account.email).join(Membership.account)
    query = query.where(Membership.tenant_id.in_({tenant_id for tenant_id, _ in members}))
    for membership, email in db.session.execute(query).all():
        if (membership.tenant_id, email) in members:
            membership.role = ADMINISTRATOR


def _add_recipients(new: Mapping[Tenant, Sequence[str]]) -> None:
    rows = defaultdict[int, list[Recipient]](list)
    for row in db.session.scalars(select(Recipient).where(Recipient.tenant_id.in_([tenant.id for tenant in new]))):
        rows[row.tenant_id].append(row)
    for tenant, emails in new.items():
        recipient_service.extend(tenant, rows[tenant.id], emails)
