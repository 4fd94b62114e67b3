"""Who does what is done in this application context: told at the edge, read where an entry is written."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import g


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, in words, and from where: the IP address of a client, where there is one."""

    name: str
    account_id: int | None = None
    address: str | None = None


PORTAL = Actor("portal")


def act_as(find: Callable[[], Actor]) -> None:
    """Have `find` say who acts, for the rest of this context. It is asked only where something is written."""
    g.actor = find


def actor() -> Actor:
    """Return who acts: the portal itself unless the edge said otherwise."""
    find: Callable[[], Actor] | None = g.get("actor")
    return find() if find else PORTAL
