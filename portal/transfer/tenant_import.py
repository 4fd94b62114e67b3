"""Importing the document of a tenant into this portal: tried first, then written all together or not.

Whatever the document holds is validated as if it were typed into the forms of the pages: its author may be anybody.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask_babel import gettext
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from portal.accounts.models import ADMINISTRATOR, Account
from portal.audit.log import current_actor, record
from portal.database import clock
from portal.database.scope import every_tenant
from portal.errors import Refusal
from portal.events.fields import clean_text
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.forms import MailServerForm, SenderForm
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth.forms import parse_directory
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.oauth.private_keys import parse_certificate, parse_service_account
from portal.mail_templates.forms import BrandingForm, TemplateForm
from portal.mail_templates.models import MailTemplate
from portal.mail_templates.source import COMPILE_ERRORS, check_source
from portal.notifications.models import NotificationSetting, Recipient
from portal.pbx.forms import KeyForm
from portal.pbx.models import ApiKey, encrypt_signing_secret
from portal.tenants import service as tenant_service
from portal.tenants.forms import TenantForm
from portal.tenants.models import Tenant
from portal.transfer import sealing
from portal.transfer.invitation_emails import Invited, invite_later
from portal.transfer.tenant_document import Document, Key, Notification, OAuthSettings, RecipientRow, Secrets
from portal.web.forms import PortalForm, has_control_characters, normalize_email
from portal.web.i18n import to_translate

PASSWORD_MISSING: Final = to_translate("The password of the mail server was not imported. Enter it again.")


class NotImported(ValueError):
    """What is wrong with a document, as a sentence."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import writes, or has written. `to_do` are sentences about what it could not bring along."""

    name: str
    domain: str
    recipient_count: int
    enabled_count: int
    template_count: int
    key_count: int
    email_count: int
    administrators: Sequence[str]
    mail_server: str | None
    has_secrets: bool
    to_do: Sequence[str]


def preview(document: Document) -> Imported | Refusal:
    """Return what importing a document without its secrets would write: it is tried, and nothing is kept."""
    return _try(document, None, by=None, keep=False)


def apply(document: Document, passphrase: str | None, *, by: Account | None) -> Imported | Refusal:
    """Import a document with its secrets, or without them where there is no passphrase. None is the command line."""
    secrets = None
    if document.secrets and passphrase:
        try:
            secrets = sealing.unseal(document, passphrase)
        except sealing.CannotUnseal:
            text = gettext("The passphrase is wrong, or the file was changed after the export.")
            return Refusal("passphrase", text)
    return _try(document, secrets, by=by, keep=True)


def _try(document: Document, secrets: Secrets | None, *, by: Account | None, keep: bool) -> Imported | Refusal:
    with every_tenant():
        savepoint = db.session.begin_nested()
        try:
            imported = _write(document, secrets, by)
        except (NotImported, IntegrityError) as error:
            savepoint.rollback()
            db.session.commit()  # ends the transaction
            taken = gettext("Someone has just added this tenant.")
            return Refusal("text", str(error) if isinstance(error, NotImported) else taken)
        savepoint.commit() if keep else savepoint.rollback()
        db.session.commit()
    return imported


def _write(document: Document, secrets: Secrets | None, by: Account | None) -> Imported:
    tenant = _add_tenant(document)
    to_do = [*_add_mail_server(document, secrets, tenant), *_add_keys(document, secrets, tenant)]
    for row in document.recipients:
        db.session.add(_recipient(row, tenant))
    if len({row.email.lower() for row in document.recipients}) < len(document.recipients):
        raise NotImported(gettext("A recipient is there twice."))
    event_types = [notification.event_type for notification in document.notifications]
    if twice := next((name for name in event_types if event_types.count(name) > 1), None):
        raise NotImported(gettext("The event type %(name)s is there twice.", name=twice))
    for notification in document.notifications:
        _add_notification(notification, tenant)
    emails = {_checked("people", normalize_email, person.email).lower(): person.role for person in document.people}
    record("tenant.imported", tenant.domain, tenant_id=tenant.id)
    db.session.flush()
    invite_later([Invited(tenant, email, role) for email, role in emails.items()], by=by)
    db.session.flush()
    server = document.mail_server
    return Imported(
        name=tenant.name,
        domain=tenant.domain,
        recipient_count=len(document.recipients),
        enabled_count=sum(notification.enabled for notification in document.notifications),
        template_count=sum(notification.template is not None for notification in document.notifications),
        key_count=sum(1 for key in document.keys if _is_complete(key, secrets)),
        email_count=len(emails),
        administrators=[email for email, role in emails.items() if role == ADMINISTRATOR],
        mail_server=f"{server.host}:{server.port}" if server else None,
        has_secrets=document.secrets is not None,
        to_do=to_do,
    )


def _add_tenant(document: Document) -> Tenant:
    entered = document.tenant
    form = _validated("tenant", TenantForm.from_values(entered.model_dump()))
    sender = _validated("tenant", SenderForm.from_values({"reply_to": entered.reply_to}))
    branding = _validated(
        "tenant",
        BrandingForm.from_values(
            {
                "sender_name": entered.sender_name,
                "colour": entered.brand_color,
                "footer": entered.email_footer,
                "language": entered.language,
            }
        ),
    )
    if tenant_service.find(form.domain.data):
        raise NotImported(gettext("There is a tenant with the SIP domain %(domain)s already.", domain=form.domain.data))
    tenant = Tenant(
        name=form.name.data,
        domain=form.domain.data,
        realm=form.realm.data or None,
        time_zone=form.time_zone.data,
        language=form.language.data,
        sender_name=branding.sender_name.data or None,
        reply_to=sender.reply_to.data or None,
        brand_color=branding.colour.data or None,
        email_footer=branding.footer.data or None,
        storm_limit=entered.storm_limit,
        storm_minutes=entered.storm_minutes,
        alerts_on_silence=entered.alerts_on_silence,
        suspended_at=clock.now() if entered.suspended else None,
    )
    db.session.add(tenant)
    db.session.flush()
    return tenant


def _recipient(row: RecipientRow, tenant: Tenant) -> Recipient:
    quiet = row.quiet_hours
    if quiet and len(set(quiet.days)) == 7 and quiet.begin == quiet.end:
        raise NotImported(gettext("These quiet hours would never end. Leave out a day or some hours."))
    if any(clean_text(queue) != queue for queue in row.queues):
        raise NotImported(gettext("Control characters are not allowed here."))
    return Recipient(
        tenant_id=tenant.id,
        email=_checked("recipients", normalize_email, row.email),
        excluded_event_types=row.excluded_event_types,
        paused_until=row.paused_until,
        queues=row.queues,
        quiet_days=sorted(set(quiet.days)) if quiet else [],
        quiet_from=quiet.begin.replace(tzinfo=None) if quiet else None,
        quiet_until=quiet.end.replace(tzinfo=None) if quiet else None,
        urgent_event_types=row.urgent_event_types,
    )


def _add_notification(notification: Notification, tenant: Tenant) -> None:
    event_type = EVENT_TYPES.get(notification.event_type)
    if event_type is None:
        text = gettext("This portal does not know the event type %(name)s.", name=notification.event_type)
        raise NotImported(text)
    version = None
    if entered := notification.template:
        form = _validated(event_type.type, TemplateForm.from_values(entered.model_dump()))
        source = form.entered()
        try:
            check_source(event_type, source, tenant.language)
        except COMPILE_ERRORS as error:
            text = gettext("The template of %(name)s cannot be used: %(reason)s", name=event_type.type, reason=error)
            raise NotImported(text) from None
        values = {"format": source.format, "subject": source.subject, "body": source.body}
        version = MailTemplate(
            tenant_id=tenant.id, event_type=event_type.type, created_by=current_actor().name, **values
        )
        db.session.add(version)
        db.session.flush()
    setting = NotificationSetting(tenant_id=tenant.id, event_type=event_type.type, enabled=notification.enabled)
    setting.audience, setting.template_id = notification.audience, version.id if version else None
    db.session.add(setting)


def _add_mail_server(document: Document, secrets: Secrets | None, tenant: Tenant) -> Sequence[str]:
    """Add the mail server, and return what is left to do about it. Without its password it is not used."""
    entered = document.mail_server
    if entered is None:
        return []
    password = secrets.mail_server_password if secrets else None
    values = entered.model_dump() | {"password": password or "?"}  # a password that is missing is no error here
    settings = _validated("mail_server", MailServerForm.from_values(values)).entered_settings()
    allowed = mail_server_service.connection_settings(tenant.id, settings)
    if isinstance(allowed, Refusal):
        raise NotImported(gettext("%(field)s: %(error)s", field="mail_server", error=allowed.text))
    server = MailServer(tenant_id=tenant.id, provider=settings.provider, host=settings.host, port=settings.port)
    server.encryption, server.auth_mode = settings.encryption, settings.auth_mode
    server.username, server.sender_email, server.shared = allowed.username, settings.sender_email, False
    if settings.needs_password:
        server.password = password
    db.session.add(server)
    to_do = []
    if settings.needs_password and not password:
        server.rejected_at, server.pause_reason = clock.now(), PASSWORD_MISSING
        to_do.append(gettext(PASSWORD_MISSING))
    if document.oauth and not _add_oauth(document.oauth, secrets, tenant):
        to_do.append(gettext("Connect the mailbox of the mail server again."))
    return to_do


def _add_oauth(entered: OAuthSettings, secrets: Secrets | None, tenant: Tenant) -> bool:
    """Add the connection to a mailbox, and return whether it is connected."""
    private_key = secrets.oauth_private_key if secrets else None
    certificate = None
    if private_key and entered.grant_type == "service_account":
        file = {"type": "service_account", "client_email": entered.client_id, "private_key": private_key}
        private_key = _checked("oauth", parse_service_account, json.dumps(file)).private_key
    elif private_key:
        parsed = _checked("oauth", parse_certificate, f"{entered.certificate}\n{private_key}")
        certificate, private_key = parsed.certificate, parsed.private_key
    if any(has_control_characters(text or "") for text in (entered.client_id, entered.mailbox)):
        raise NotImported(gettext("Control characters are not allowed here."))
    connection = OAuthConnection(
        tenant_id=tenant.id,
        provider=entered.provider,
        grant_type=entered.grant_type,
        client_id=entered.client_id,
        directory=_checked("oauth", parse_directory, entered.directory) if entered.directory else None,
        mailbox=_checked("oauth", normalize_email, entered.mailbox) if entered.mailbox else None,
        certificate=certificate,
        credential_expires_at=entered.credential_expires_at,
    )
    connection.write_secret("private_key", private_key)
    connection.write_secret("client_secret", secrets.oauth_client_secret if secrets else None)
    connection.write_secret("refresh_token", secrets.oauth_refresh_token if secrets else None)
    has_proof = bool(secrets and (secrets.oauth_refresh_token or secrets.oauth_client_secret or private_key))
    connection.connected_at = clock.now() if has_proof else None
    db.session.add(connection)
    return has_proof


def _is_complete(key: Key, secrets: Secrets | None) -> bool:
    """Return whether a key can be imported: one that requires signatures must not do without them."""
    return not key.signed or bool(secrets and key.hash in secrets.signing_secrets)


def _add_keys(document: Document, secrets: Secrets | None, tenant: Tenant) -> Sequence[str]:
    """Add the keys, and return what is left to do about those that cannot be imported."""
    hashes = [bytes.fromhex(key.hash) for key in document.keys]
    query = select(ApiKey.id).where(ApiKey.key_hash.in_(hashes)).limit(1)
    if len(set(hashes)) < len(hashes) or db.session.scalar(query):
        raise NotImported(gettext("A key of this file is in use already, perhaps by another tenant."))
    to_do = []
    for key in document.keys:
        name = _validated("keys", KeyForm.from_values({"name": key.name})).name.data
        if not _is_complete(key, secrets):
            to_do.append(gettext("Issue a new key for %(name)s: its signing secret was not imported.", name=name))
            continue
        db.session.add(_key(key, name, secrets, tenant.id))
    return to_do


def _key(key: Key, name: str, secrets: Secrets | None, tenant_id: int) -> ApiKey:
    current = secrets.signing_secrets.get(key.hash) if secrets else None
    previous, expires_at = None, key.previous_secret_expires_at
    if current and secrets and expires_at:
        previous = secrets.previous_signing_secrets.get(key.hash)
    return ApiKey(
        tenant_id=tenant_id,
        name=name,
        key_hash=bytes.fromhex(key.hash),
        prefix=key.prefix,
        expires_at=key.expires_at,
        signing_secret_encrypted=encrypt_signing_secret(current, tenant_id) if current else None,
        previous_secret_encrypted=encrypt_signing_secret(previous, tenant_id) if previous else None,
        previous_secret_expires_at=expires_at if previous else None,
    )


def _validated(place: str, form: Any) -> Any:
    """Return a form that is valid. NotImported: it is not."""
    assert isinstance(form, PortalForm)
    if not form.validate():
        raise NotImported(gettext("%(field)s: %(error)s", field=place, error=form.first_error or ""))
    return form


def _checked(place: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise NotImported(gettext("%(field)s: %(error)s", field=place, error=error)) from None
