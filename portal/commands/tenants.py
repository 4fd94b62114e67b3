"""The commands about tenants and their recipients."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from portal.commands.group import (
    TENANT,
    CommandGroup,
    ask_passphrase,
    find_tenant,
    new_passphrase,
    refuse_if,
    unwrap,
    validated,
)
from portal.commands.output import echo, echo_text, fail, visible
from portal.crypto import UnreadableSecret
from portal.generated_secrets import write_private
from portal.notifications import recipients as recipient_service
from portal.overview import tenant_list
from portal.overview.tenant_list import TenantFilter, TenantList
from portal.tenants import service as tenant_service
from portal.tenants.forms import TenantForm
from portal.tenants.models import Tenant
from portal.transfer import csv_import, deletion, tenant_document, tenant_export, tenant_import
from portal.transfer.csv_import import Change
from portal.web import csv_export

tenants = CommandGroup("tenants", help="The tenants of the PBX.")
recipients = CommandGroup("recipients", help='The "Emails of Recipients" of a tenant.')

DOMAIN = click.argument("tenant", metavar="DOMAIN", callback=lambda _context, _parameter, domain: find_tenant(domain))
YES = click.option("--yes", is_flag=True, help="Do not ask.")
TABLE_COLUMNS = ("name", "domain", "health", "mail_server", "held", "last_event_at")


@tenants.command("add")
@click.argument("name")
@click.option("--domain", required=True, help="The tenant's SIP domain on the PBX.")
@click.option("--time-zone", default="UTC", show_default=True, help="For example Europe/Berlin.")
@click.option("--realm", help="With which the PBX challenges softphones. Default: the SIP domain.")
def add_tenant(name: str, domain: str, time_zone: str, realm: str | None) -> None:
    """Add a tenant."""
    values = {"name": name, "domain": domain, "time_zone": time_zone, "realm": realm}
    form = validated(TenantForm.from_values(values))
    tenant = unwrap(tenant_service.add(form.name.data, form.domain.data, form.time_zone.data, form.realm.data))
    echo(f"{tenant.name} was added with the domain {tenant.domain}.")


@tenants.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with all columns.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV, with all columns.")
def list_tenants(as_json: bool, as_csv: bool) -> None:
    """List the tenants and how their email is doing."""
    columns = tuple(tenant_list.CSV_COLUMNS)
    if as_csv:
        echo_text(csv_export.lines([columns]))
        for rows in _pages():
            echo_text(csv_export.lines(rows))
    elif as_json:
        listed = [dict(zip(columns, row, strict=True)) for rows in _pages() for row in rows]
        echo_text(json.dumps(listed, ensure_ascii=False, indent=2, default=str) + "\n")
    else:
        chosen = [columns.index(name) for name in TABLE_COLUMNS]
        table = [
            ["" if row[index] is None else str(row[index]) for index in chosen] for rows in _pages() for row in rows
        ]
        _echo_table([list(TABLE_COLUMNS), *table])


@tenants.command("suspend")
@DOMAIN
def suspend_tenant(tenant: Tenant) -> None:
    """Stop a tenant's email. Its events are recorded."""
    tenant_service.suspend(tenant)
    echo(f"{tenant.domain} is suspended.")


@tenants.command("resume")
@DOMAIN
def resume_tenant(tenant: Tenant) -> None:
    """Turn the email of a suspended tenant on again."""
    refuse_if(tenant_service.resume(tenant))
    echo(f"{tenant.domain} is active.")


@tenants.command("export")
@DOMAIN
@click.option("--output", type=click.Path(path_type=Path), help="The file to write. Default: standard output.")
@click.option("--without-secrets", is_flag=True, help="Leave passwords and signing secrets out.")
def export_tenant(tenant: Tenant, output: Path | None, without_secrets: bool) -> None:
    """Write a tenant's settings as JSON. PORTAL_PASSPHRASE encrypts its secrets; if unset, you are asked for it."""
    passphrase = None if without_secrets else new_passphrase("--without-secrets")
    try:
        content = tenant_document.to_json(tenant_export.export(tenant, passphrase))
    except UnreadableSecret:
        fail("A saved secret cannot be read: its key is missing in ENCRYPTION_KEYS. Use --without-secrets.")
    if output is None:
        echo_text(content.decode())
        return
    if output.is_symlink() or (output.exists() and not output.is_file()):
        fail(f"{output} is a link or no file. Leave --output out to write to standard output.")
    try:
        write_private(output, content.decode())
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}.")
    echo(f"{tenant.domain} was exported to {output}.")


@tenants.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--preview", "only_preview", is_flag=True, help="Only show what would change.")
@YES
def import_tenants(file: Any, only_preview: bool, yes: bool) -> None:
    """Import a CSV file with tenants, or the file of an exported tenant, after a preview.

    PORTAL_PASSPHRASE is the passphrase of an export; if unset, you are asked for it. If it is empty, the secrets are
    left out.
    """
    content = file.read(tenant_document.MAX_BYTES + 1)
    if tenant_document.looks_like_document(content):
        _import_document(content, only_preview, yes)
    else:
        _import_csv(content, only_preview, yes)


@tenants.command("delete")
@DOMAIN
@YES
def delete_tenant(tenant: Tenant, yes: bool) -> None:
    """Delete a tenant with its events, emails and settings. Its entries in the audit trail are kept."""
    tenant_id, domain = tenant.id, tenant.domain
    _echo_counts("Now", deletion.count(tenant_id))
    if not yes and _answer(f"Type {domain} to delete it") != domain:
        fail("Nothing was deleted.")
    deletion.request(tenant)
    deletion.finish(tenant_id)
    _echo_counts("Left", deletion.count(tenant_id))
    echo(f"{domain} was deleted.")


@recipients.command("set")
@TENANT
@click.argument("emails", nargs=-1, required=True, metavar="EMAIL...")
def set_recipients(tenant: Tenant, emails: Sequence[str]) -> None:
    """Replace the recipients of a tenant."""
    parsed = unwrap(recipient_service.parse_emails("\n".join(emails)))
    recipient_service.replace(tenant, parsed)
    echo(f"{tenant.domain} has {len(parsed)} recipient{'s' * (len(parsed) > 1)}.")


def _pages() -> Iterator[Sequence[Sequence[Any]]]:
    """Yield the rows of all tenants, by name."""
    found, after = TenantList(TenantFilter(), "name"), None
    while True:
        page = found.read_cells(after)
        yield page.rows
        if (after := page.next_key) is None:
            return


def _echo_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _echo_counts(when: str, counts: deletion.Counts) -> None:
    echo(f"{when}: {_numbers(**{name.removesuffix('_count'): number for name, number in asdict(counts).items()})}.")


def _numbers(**numbers: int) -> str:
    """Return numbers with what they count, as in "1 recipient, 2 people"."""
    texts = (f"{number} {name}{'s' * (number != 1)}" for name, number in numbers.items())
    return ", ".join(texts).replace("persons", "people")


def _import_csv(content: bytes, only_preview: bool, yes: bool) -> None:
    preview = unwrap(csv_import.preview(content))
    for change in (*preview.added, *preview.changed):
        echo(_described(change))
    for bad in preview.bad:
        echo(f"line {bad.line}: {bad.text}", err=True)
    if preview.ignored_columns:
        echo(f"Ignored columns: {', '.join(preview.ignored_columns)}.")
    counts = (
        len(preview.added),
        len(preview.changed),
        len(preview.unchanged),
        _numbers(invitation=preview.email_count),
    )
    echo("{} new, {} changed, {} unchanged. {} by email.".format(*counts))
    if preview.bad:
        fail(f"{_numbers(line=len(preview.bad))} cannot be used. Nothing was imported.")
    if only_preview or not preview.can_be_imported:
        return
    _confirm(yes)
    unwrap(csv_import.apply(content, preview.version, by=None))
    echo("Imported.")


def _described(change: Change) -> str:
    settings = [f"{name} {old or '-'} -> {new}" for name, (old, new) in change.settings.items()]
    lists = {"invite": change.invited, "make administrator": change.promoted, "recipients": change.recipients}
    parts = [*settings, *(f"{label} {' '.join(emails)}" for label, emails in lists.items() if emails)]
    return f"{'add' if change.is_new else 'change'} {change.domain}: {'; '.join(parts)}"


def _import_document(content: bytes, only_preview: bool, yes: bool) -> None:
    found = unwrap(tenant_document.read(content))
    tried = unwrap(tenant_import.preview(found))
    numbers = {"recipient": tried.recipient_count, "template": tried.template_count, "invitation": tried.email_count}
    echo(f"add {tried.domain}: {tried.name}; mail server {tried.mail_server or '-'}")
    echo(f"{_numbers(**numbers)} by email. Events that send email: {tried.enabled_count}.")
    echo(f"Administrators: {', '.join(tried.administrators) or '-'}.")
    if only_preview:
        return
    passphrase = ask_passphrase() if found.secrets else None
    _confirm(yes)
    done = unwrap(tenant_import.apply(found, passphrase or None, by=None))
    for text in done.to_do:
        echo(text)
    echo(f"{done.domain} was imported with {_numbers(key=done.key_count)}.")


def _confirm(yes: bool) -> None:
    if not yes and _answer("Import? [y/N]").lower() not in {"y", "yes"}:
        fail("Nothing was imported.")


def _answer(question: str) -> str:
    """Return what is typed, nothing where nobody can."""
    try:
        return str(click.prompt(visible(question), default="", show_default=False))
    except click.Abort:
        return ""
