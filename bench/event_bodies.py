"""Request bodies of events, made from a number."""

import json
from collections.abc import Callable, Mapping
from typing import Final

from portal.events.types import EVENT_TYPES


def call_lost(number: int) -> bytes:
    """Return a lost call in queue `number`: each in its own queue, so that the storm limit does not apply."""
    return _event("queue.call_lost", queue_number=str(number))


def user_created(number: int) -> bytes:
    """Return the creation of user `number`. Its email has a QR code and goes only to the tenant's recipient."""
    return _event("user.created", extension_number=str(number), email=None)


def alert(number: int) -> bytes:
    """Return the content of `call_lost` in Alertmanager's format."""
    labels = {name: str(value) for name, value in json.loads(call_lost(number))["data"].items()}
    return json.dumps([{"labels": {"alertname": "CallLost"} | labels}]).encode()


def _event(kind: str, **data: object) -> bytes:
    return json.dumps({"type": kind, "data": {**EVENT_TYPES[kind].sample, **data}}).encode()


BODIES: Final[Mapping[str, Callable[[int], bytes]]] = {"queue.call_lost": call_lost, "user.created": user_created}
