"""The commands about the events that send email."""

from collections.abc import Sequence

import click

from portal.commands.group import TENANT, CommandGroup
from portal.commands.output import echo, fail
from portal.events.types import EVENT_TYPES
from portal.notifications import settings
from portal.tenants.models import Tenant

notifications = CommandGroup("notifications", help="The events that send email.")

EVENT_TYPE_NAMES = click.argument("event_types", nargs=-1, required=True, metavar="TYPE...|all")


@notifications.command("on")
@TENANT
@EVENT_TYPE_NAMES
def notifications_on(tenant: Tenant, event_types: Sequence[str]) -> None:
    """Turn on email for these events."""
    _set_enabled(tenant, event_types, on=True)


@notifications.command("off")
@TENANT
@EVENT_TYPE_NAMES
def notifications_off(tenant: Tenant, event_types: Sequence[str]) -> None:
    """Turn off email for these events."""
    _set_enabled(tenant, event_types, on=False)


def _set_enabled(tenant: Tenant, event_types: Sequence[str], *, on: bool) -> None:
    if unknown := [name for name in event_types if name not in {*EVENT_TYPES, "all"}]:
        fail(f"There is no event type {unknown[0]}. Use one of: {', '.join(EVENT_TYPES)}.")
    chosen = list(EVENT_TYPES) if "all" in event_types else event_types
    settings.set_enabled(tenant, chosen, on=on)
    echo(f"{tenant.domain}: {', '.join(chosen)} {'on' if on else 'off'}.")
