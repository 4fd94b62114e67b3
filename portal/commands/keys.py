"""The commands about API keys."""

import click

from portal.commands.group import CommandGroup, owner_of, unwrap, validated
from portal.commands.output import echo, fail
from portal.pbx import api_keys
from portal.pbx.forms import OVERLAP_HOURS, KeyForm, OverlapForm, RotationForm
from portal.pbx.models import ApiKey
from portal.tenants.models import Tenant

keys = CommandGroup("keys", help="The API keys with which PBXs post events.")

KEY = click.argument("key_id", metavar="ID", type=int)
OVERLAP = click.option(
    "--hours",
    type=click.Choice(list(OVERLAP_HOURS)),
    default="24",
    show_default=True,
    help="How long the old one stays valid.",
)


@keys.command("issue")
@click.option("--tenant", metavar="DOMAIN", help="A key for the events of this tenant.")
@click.option("--system", is_flag=True, help="A key for the events of all tenants.")
@click.option("--name", default="PBX", show_default=True, help="The PBX that uses it.")
@click.option("--expires", metavar="DATE", help="The last day on which it is valid, for example 2027-01-31.")
@click.option("--signed", is_flag=True, help="Require signed requests.")
def issue_key(tenant: str | None, system: bool, name: str, expires: str | None, signed: bool) -> None:
    """Issue a key and print it, and its signing secret on a second line if it has one. Neither is shown again."""
    owner = owner_of(tenant, system)
    form = validated(KeyForm.from_values({"name": name, "expires_on": expires}))
    if refusal := api_keys.limit_refusal(owner):
        fail(refusal.text)
    _print_secrets(api_keys.issue(owner, form.name.data, form.expires_on.data, signed=signed))


@keys.command("rotate")
@KEY
@OVERLAP
@click.option("--expires", metavar="DATE", help="The last day on which the new key is valid.")
def rotate_key(key_id: int, hours: str, expires: str | None) -> None:
    """Issue a key's successor and print it. The old key stays valid for a while."""
    key, owner = _key(key_id)
    form = validated(RotationForm.from_values({"hours": hours, "expires_on": expires}))
    _print_secrets(unwrap(api_keys.rotate(owner, key, form.overlap, form.expires_on.data)))


@keys.command("renew-secret")
@KEY
@OVERLAP
def renew_secret(key_id: int, hours: str) -> None:
    """Create a new signing secret for a key and print it. The previous one stays valid for a while."""
    form = validated(OverlapForm.from_values({"hours": hours}))
    _print_secrets(unwrap(api_keys.renew_secret(_key(key_id)[0], form.overlap)))


@keys.command("list")
def list_keys() -> None:
    """List the keys: ID, first characters, owner, name, state, last use."""
    for key, owner in api_keys.list_all():
        used = f"last used {key.last_used_at:%Y-%m-%d %H:%M} UTC" if key.last_used_at else "never used"
        end = key.revoked_at or key.expires_at
        state = f"{key.state} {end:%Y-%m-%d}" if end else key.state
        echo(f"{key.id}\t{key.prefix}…\t{owner.domain if owner else 'system'}\t{key.name}\t{state}\t{used}")


@keys.command("revoke")
@KEY
def revoke_key(key_id: int) -> None:
    """Reject a key from now on."""
    key, _ = _key(key_id)
    api_keys.revoke(key)
    echo(f"Key {key.id} ({key.prefix}…) is revoked.")


def _key(key_id: int) -> tuple[ApiKey, Tenant | None]:
    matches = [(key, owner) for key, owner in api_keys.list_all() if key.id == key_id]
    return matches[0] if matches else fail("There is no key with this ID.")


def _print_secrets(issued: api_keys.IssuedKey) -> None:
    for secret in filter(None, (issued.secret, issued.signing_secret)):
        echo(secret)
