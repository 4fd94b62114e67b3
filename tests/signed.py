"""A PBX that signs its calls, and whoever tries to pass for it."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from standardwebhooks import Webhook

from portal.pbx import keys
from portal.pbx.keys import IssuedKey
from portal.tenants import directory
from tests.ready import CALL_LOST, Answer, read

BODY = json.dumps({"type": "queue.call_lost", "data": CALL_LOST})


@pytest.fixture
def signed(app: Flask, ready: str) -> IssuedKey:
    """A key of Acme that accepts signed calls only."""
    with app.app_context():
        return keys.issue(directory.find(ready), "Signed", signed=True)


def stamp(secret: str, body: str = BODY, *, message: str = "msg_1", ago: float = 0) -> dict[str, str]:
    """Return the headers of a call that was signed so many seconds ago."""
    moment = datetime.fromtimestamp(time.time() - ago, UTC)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(message, moment, body),
    }


def call(client: FlaskClient, key: str, headers: Mapping[str, Any], body: str | bytes = BODY) -> Answer:
    """Post the body with the key and these headers, and return the answer."""
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    return read(client.post("/api/v1/events", data=body, headers=given))
