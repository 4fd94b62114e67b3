"""A PBX that signs its requests, and attackers who imitate it."""

import base64
import hmac
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from standardwebhooks import Webhook

from portal.pbx import api_keys
from portal.pbx.api_keys import IssuedKey
from portal.tenants import service as tenant_service
from tests.tenant_fixtures import CALL_LOST, Answer, read

BODY = json.dumps({"type": "queue.call_lost", "data": CALL_LOST})


@pytest.fixture
def signed_key(app: Flask, working_tenant: str) -> IssuedKey:
    """A key of Acme whose requests must be signed."""
    with app.app_context():
        return api_keys.issue(tenant_service.find(working_tenant), "Signed", signed=True)


def signature_headers(
    secret: str, body: str | bytes = BODY, *, message_id: str = "msg_1", seconds_ago: float = 0
) -> dict[str, str]:
    """Return the headers of a request that was signed some seconds ago."""
    signed_at = datetime.fromtimestamp(time.time() - seconds_ago, UTC)
    if isinstance(body, bytes):  # which the library does not sign
        content = f"{message_id}.{int(signed_at.timestamp())}.".encode() + body
        digest = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), content, "sha256")
        signature = f"v1,{base64.b64encode(digest).decode()}"
    else:
        signature = Webhook(secret).sign(message_id, signed_at, body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(signed_at.timestamp())),
        "webhook-signature": signature,
    }


def post_body(client: FlaskClient, key: str, headers: Mapping[str, Any], body: str | bytes = BODY) -> Answer:
    """Post the body with the key and these headers, and return the response."""
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    return read(client.post("/api/v1/events", data=body, headers=given))
