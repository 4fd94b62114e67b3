"""A client that openapi-python-client generates from the description sends every event."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from flask import Flask

from portal.events.event_type import EventType
from portal.events.types import EVENT_TYPES
from tests.sql import sql
from tests.web_server import portal_url

__all__ = ["portal_url"]

pytestmark = pytest.mark.slow

PACKAGE = "generated_portal_client"


@pytest.fixture(scope="module")
def generated(built_app: Flask, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The generated package. The generator says nothing that it could not understand."""
    tmp_path = tmp_path_factory.mktemp("client")
    description, config = tmp_path / "openapi.json", tmp_path / "config.json"
    description.write_bytes(built_app.test_client().get("/api/v1/openapi.json").data)
    config.write_text(json.dumps({"post_hooks": []}))
    arguments = ["--path", description, "--output-path", tmp_path / PACKAGE, "--config", config]
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "arning" not in done.stdout + done.stderr, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(tmp_path)
        yield importlib.import_module(PACKAGE)
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def send(generated: ModuleType, url: str, key: str, body: object) -> Any:
    endpoint = importlib.import_module(f"{PACKAGE}.api.events.receive_event")
    with generated.AuthenticatedClient(base_url=url, token=key) as client:
        return endpoint.sync(client=client, body=body)


def sample_of(event_type: EventType) -> dict[str, Any]:
    data = event_type.sample_data(datetime.now(UTC))
    return {"id": event_type.type, "type": event_type.type, "data": data.public_fields() | data.secret_fields()}


def test_it_sends_all_events(app: Flask, generated: ModuleType, portal_url: str, key: str, working_tenant: str) -> None:
    models = importlib.import_module(f"{PACKAGE}.models")
    for event_type in EVENT_TYPES.values():
        event = getattr(models, f"{event_type.fields.__name__}Event").from_dict(sample_of(event_type))
        result = send(generated, portal_url, key, event)
        assert (str(result.status), result.warnings) == ("sent", []), event_type
    with app.app_context():
        assert {name for (name,) in sql("SELECT type FROM events")} == set(EVENT_TYPES)


def test_only_the_required_fields_need_values(
    generated: ModuleType, portal_url: str, key: str, working_tenant: str
) -> None:
    models = importlib.import_module(f"{PACKAGE}.models")
    data = models.CallLost(queue_number="8000", caller_number="+442079460123")
    event = models.CallLostEvent(type_="queue.call_lost", data=data)
    assert str(send(generated, portal_url, key, event).status) == "sent"
