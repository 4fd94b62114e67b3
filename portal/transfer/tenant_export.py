"""Exporting one tenant as a document: see `tenant_document`."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import select

from portal.accounts.models import Account, Membership
from portal.audit.log import record
from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_templates.models import MailTemplate
from portal.notifications import recipients
from portal.notifications.models import NotificationSetting, Recipient
from portal.pbx.models import ApiKey, decrypt_signing_secret
from portal.people.models import Invitation
from portal.tenants.models import Tenant
from portal.transfer import sealing
from portal.transfer.tenant_document import (
    FORMAT,
    VERSION,
    Document,
    Key,
    MailServerSettings,
    Notification,
    OAuthSettings,
    Person,
    QuietHoursOfRecipient,
    RecipientRow,
    Secrets,
    Template,
    TenantSettings,
)

OAUTH_SECRETS: Final = ("client_secret", "private_key", "refresh_token")


def export(tenant: Tenant, passphrase: str | None) -> Document:
    """Return the document of a tenant, and record that. Without a passphrase the secrets are left out.

    UnreadableSecret: a stored secret cannot be read, because its encryption key is missing.
    """
    enter_scope(tenant.id)
    server, connection = db.session.scalar(select(MailServer)), db.session.scalar(select(OAuthConnection))
    keys = [key for key in db.session.scalars(select(ApiKey).order_by(ApiKey.id)) if key.is_valid]
    document = Document(
        format=FORMAT,
        version=VERSION,
        tenant=TenantSettings(suspended=tenant.is_suspended, **_columns(TenantSettings, tenant, "suspended")),
        recipients=[_recipient(row) for row in recipients.list_recipients()],
        notifications=_notifications(),
        mail_server=MailServerSettings(**_columns(MailServerSettings, server)) if server else None,
        oauth=OAuthSettings(**_columns(OAuthSettings, connection)) if connection else None,
        keys=[_key(key) for key in keys],
        people=_people(tenant),
    )
    secrets = _secrets(server, connection, keys, tenant.id) if passphrase else None
    change = "left out" if secrets is None else "set"
    record("tenant.exported", tenant.domain, tenant_id=tenant.id, changes={"secrets": change})
    db.session.commit()
    return sealing.seal(document, secrets, passphrase) if secrets and passphrase else document


def _columns(part: type[Any], row: Any, *left_out: str) -> dict[str, Any]:
    """Return the values of a part that are called as the columns of its row are."""
    return {name: getattr(row, name) for name in part.model_fields if name not in left_out}


def _recipient(row: Recipient) -> RecipientRow:
    quiet = row.quiet_hours
    return RecipientRow(
        quiet_hours=QuietHoursOfRecipient(days=sorted(quiet.days), begin=quiet.begin, end=quiet.end) if quiet else None,
        **_columns(RecipientRow, row, "quiet_hours"),
    )


def _notifications() -> list[Notification]:
    templates = select(MailTemplate).join(NotificationSetting, NotificationSetting.template_id == MailTemplate.id)
    in_use = {template.id: template for template in db.session.scalars(templates)}
    rows = {row.event_type: row for row in db.session.scalars(select(NotificationSetting))}
    return [
        Notification(
            event_type=name,
            enabled=row.enabled,
            audience=row.audience,  # type: ignore[arg-type]
            template=_template(in_use[row.template_id]) if row.template_id else None,
        )
        for name in EVENT_TYPES
        if (row := rows.get(name))
    ]


def _template(row: MailTemplate) -> Template:
    return Template(**_columns(Template, row))


def _key(key: ApiKey) -> Key:
    return Key(
        name=key.name,
        hash=key.key_hash.hex(),
        prefix=key.prefix,
        expires_at=key.expires_at,
        signed=key.signing_secret_encrypted is not None,
        previous_secret_expires_at=key.previous_secret_expires_at if key.previous_secret_is_valid else None,
    )


def _people(tenant: Tenant) -> list[Person]:
    """Return who has access, and who is invited, by email address."""
    members = select(Account.email, Membership.role).join(Membership.account).where(Membership.tenant_id == tenant.id)
    roles = {
        email: role
        for query in (select(Invitation.email, Invitation.role), members)
        for email, role in db.session.execute(query)
    }
    return [Person(email=email, role=role) for email, role in sorted(roles.items())]  # type: ignore[arg-type]


def _secrets(
    server: MailServer | None, connection: OAuthConnection | None, keys: Sequence[ApiKey], tenant_id: int
) -> Secrets:
    signing = {key.key_hash.hex(): key.signing_secret_encrypted for key in keys}
    previous = {key.key_hash.hex(): key.previous_secret_encrypted for key in keys if key.previous_secret_is_valid}
    oauth = {f"oauth_{name}": connection.read_secret(name) for name in OAUTH_SECRETS} if connection else {}
    return Secrets(
        mail_server_password=server.password if server else None,
        **oauth,
        signing_secrets=_decrypted(signing, tenant_id),
        previous_signing_secrets=_decrypted(previous, tenant_id),
    )


def _decrypted(stored: dict[str, bytes | None], tenant_id: int) -> dict[str, str]:
    return {name: decrypt_signing_secret(value, tenant_id) for name, value in stored.items() if value}
