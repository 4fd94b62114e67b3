"""The way of an event: which public functions are on the stack when the first byte of SMTP is sent.

`docs/architecture.md` names the same functions.
"""

import socket
import sys
import threading
from types import FrameType
from typing import Any

import pytest
from flask.testing import FlaskClient

from portal.config import ROOT
from portal.deliveries.message import build_message
from portal.pbx.adapters.portsip import EXAMPLES
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import Post

MAX_PUBLIC_FUNCTIONS = 8
EVENT_PATH: tuple[str, ...] = (
    "pbx.webhook.handle",
    "deliveries.intake.accept_event",
    "deliveries.attempt.attempt_delivery",
    "mail_servers.smtp.pool.Pool.send",
    "mail_servers.smtp.client.SmtpConnection.open",
    "mail_servers.smtp.session.SmtpSession.greet",
    "mail_servers.smtp.transport.SmtpTransport.send",
)
EVENT_PATH_OVER_KEPT_CONNECTION: tuple[str, ...] = (
    *EVENT_PATH[:4],
    "mail_servers.smtp.client.SmtpConnection.deliver",
    "mail_servers.smtp.session.SmtpSession.transact",
    "mail_servers.smtp.transport.SmtpTransport.send",
)


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The portal's public functions on the stack for each write to a socket, from `pbx.webhook` on."""
    recorded: list[tuple[str, ...]] = []
    send, thread = socket.socket.send, threading.current_thread()

    def record_stack(sock: socket.socket, *arguments: Any) -> int:
        if threading.current_thread() is thread:
            recorded.append(public_functions(sys._getframe(1)))
        return send(sock, *arguments)

    monkeypatch.setattr(socket.socket, "send", record_stack)
    return recorded


def public_functions(frame: FrameType | None) -> tuple[str, ...]:
    names: list[str] = []
    while frame:
        module = frame.f_globals["__name__"].removeprefix("portal.")
        is_ours = frame.f_code.co_filename.startswith(str(ROOT / "portal"))
        if is_ours and not frame.f_code.co_name.startswith(("_", "<")):
            names.insert(0, f"{module}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    start = next(index for index, name in enumerate(names) if name.startswith("pbx.webhook."))
    return tuple(names[start:])


def test_an_event_takes_at_most_eight_public_functions_to_the_first_smtp_byte(
    client: FlaskClient, key: str, post: Post, working_tenant: str, peer: SmtpPeer, stacks: list[tuple[str, ...]]
) -> None:
    assert post().json["status"] == "sent"
    assert stacks[0] == EVENT_PATH
    stacks.clear()
    assert post().json["status"] == "sent"
    assert len(peer.conversations) == 1, "the connection was kept"
    assert stacks[0] == EVENT_PATH_OVER_KEPT_CONNECTION
    stacks.clear()
    payload = EXAMPLES["queue_sla_breached"]
    response = client.post("/api/v1/events/portsip", json=payload, headers={"Authorization": f"Bearer {key}"})
    assert response.get_json()["events"][0]["status"] == "sent"
    assert stacks[0] == EVENT_PATH_OVER_KEPT_CONNECTION
    assert max(len(EVENT_PATH), len(EVENT_PATH_OVER_KEPT_CONNECTION)) <= MAX_PUBLIC_FUNCTIONS


def test_the_content_of_emails_is_built_after_the_event_is_recorded(
    post: Post, working_tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded_events: list[int] = []

    def count_events(*arguments: Any) -> Any:
        recorded_events.append(sql("SELECT count(*) FROM events")[0][0])
        return build_message(*arguments)

    monkeypatch.setattr("portal.deliveries.intake.build_message", count_events)
    assert post(id="one").json["status"] == "sent"
    assert post(id="one").json["duplicate"] is True
    assert recorded_events == [1], "nothing is built for an event that is already recorded"
