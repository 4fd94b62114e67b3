"""Events as the PBX posts them, made of a number."""

import json
from collections.abc import Callable, Mapping
from typing import Final

from portal.notifications.kinds import KINDS


def call_lost(number: int) -> bytes:
    """Return the loss of a call by queue `number`: each in a queue of its own, so that the storm limit stays out."""
    return _event("queue.call_lost", queue_number=str(number))


def user_created(number: int) -> bytes:
    """Return the creation of user `number`. The mail brings a QR code, and goes to the tenant's recipient alone."""
    return _event("user.created", extension_number=str(number), email=None)


def alert(number: int) -> bytes:
    """Return what `call_lost` says as Alertmanager takes it."""
    labels = {name: str(value) for name, value in json.loads(call_lost(number))["data"].items()}
    return json.dumps([{"labels": {"alertname": "CallLost"} | labels}]).encode()


def _event(kind: str, **data: object) -> bytes:
    return json.dumps({"type": kind, "data": {**KINDS[kind].sample, **data}}).encode()


BODIES: Final[Mapping[str, Callable[[int], bytes]]] = {"queue.call_lost": call_lost, "user.created": user_created}
