"""Adding a PBX make takes an adapter and a snippet: everything else follows from the registry."""

from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import ChoiceLoader, DictLoader
from openapi_spec_validator import OpenAPIV31SpecValidator

from portal.pbx.adapters.adapter import Adapter
from portal.pbx.adapters.registry import ADAPTERS
from portal.pbx.api_reference import reference_document
from portal.pbx.openapi import openapi_document
from portal.pbx.webhook import PayloadResult
from tests.pbx.adapters import fake_make
from tests.pbx.test_openapi import is_valid
from tests.smtp_peer import SmtpPeer
from tests.tenant_fixtures import PEOPLE, Answer, read

FORMATS = [adapter for adapter in ADAPTERS.values() if adapter.payload_format]
SNIPPETS = [adapter for adapter in ADAPTERS.values() if not adapter.payload_format]


@pytest.fixture
def fake(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Adapter]:
    """The fake make, registered: its adapter in the registry, its snippet among the templates."""
    monkeypatch.setitem(ADAPTERS, "fake", fake_make.ADAPTER)
    assert app.jinja_loader
    snippet = DictLoader({"pbx/snippets/_fake.html": fake_make.SNIPPET})
    monkeypatch.setattr(app, "jinja_loader", ChoiceLoader([app.jinja_loader, snippet]))
    caches = (openapi_document, reference_document)
    for cache in caches:
        cache.cache_clear()
    yield fake_make.ADAPTER
    for cache in caches:
        cache.cache_clear()


def post(client: FlaskClient, adapter: Adapter, key: str, payload: Any, **options: Any) -> Answer:
    headers = {"Authorization": f"Bearer {key}"}
    return read(client.post(f"/api/v1/events/{adapter.name}", json=payload, headers=headers, **options))


def test_a_new_makes_events_are_recorded_and_emailed(
    client: FlaskClient, fake: Adapter, working_tenant: str, key: str, peer: SmtpPeer
) -> None:
    response = post(client, fake, key, fake_make.EXAMPLE, content_type="application/vnd.fake+json")
    assert (response.status_code, [event["status"] for event in response.json["events"]]) == (200, ["sent"])
    assert peer.messages[0].recipients == PEOPLE
    ignored = post(client, fake, key, {"happening": "answered"})
    assert (ignored.status_code, ignored.json["events"]) == (200, [])
    assert post(client, fake, key, fake_make.EXAMPLE, content_type="text/plain").status_code == 415
    assert post(client, fake, key, {"happening": "abandoned"}).status_code == 422
    assert post(client, fake, "wrong", fake_make.EXAMPLE).status_code == 401


def test_a_new_make_is_in_the_openapi_description(client: FlaskClient, fake: Adapter) -> None:
    openapi = client.get("/api/v1/openapi.json").get_json()
    OpenAPIV31SpecValidator(openapi).validate()
    operation = openapi["paths"]["/api/v1/events/fake"]["post"]
    assert operation["operationId"] == "receiveFake"
    assert list(operation["requestBody"]["content"]) == ["application/json", "application/vnd.fake+json"]
    assert "Fake PBX sends the key as a Bearer token." in operation["description"]
    assert is_valid(openapi, "FakePayload", fake_make.EXAMPLE)
    assert not is_valid(openapi, "FakePayload", {"happening": "abandoned"})
    assert openapi["components"]["schemas"]["FakeCallAbandoned"]["example"] == fake_make.EXAMPLE


def test_a_new_make_is_in_the_api_reference(client: FlaskClient, fake: Adapter) -> None:
    page = unescape(client.get("/api/reference").text)
    for text in ("Report an event as Fake PBX does", "Fake PBX knows only lost calls.", "A caller hung up in a fake"):
        assert text in page
    assert '"happening": "abandoned"' in page


def test_a_new_make_has_a_tab_with_its_snippet(admin: FlaskClient, fake: Adapter, working_tenant: str) -> None:
    page = admin.get(f"/tenants/{working_tenant}/connect?pbx=fake").text
    assert "notify http://portal.test/api/v1/events/fake KEY" in page
    assert 'pbx=fake" data-tab="tab-fake" aria-current="true">Fake PBX</a>' in page


@pytest.mark.parametrize("adapter", FORMATS, ids=lambda adapter: adapter.name)
def test_each_example_is_accepted(
    client: FlaskClient, working_tenant: str, key: str, peer: SmtpPeer, adapter: Adapter
) -> None:
    assert adapter.payload_format
    for payload in adapter.payload_format.examples.values():
        response = post(client, adapter, key, payload)
        assert (response.status_code, {event["status"] for event in response.json["events"]}) == (200, {"sent"})
        assert is_valid(openapi_document(""), PayloadResult.__name__, response.json)


@pytest.mark.parametrize("adapter", FORMATS, ids=lambda adapter: adapter.name)
def test_each_schema_is_shown_with_its_title(client: FlaskClient, adapter: Adapter) -> None:
    assert adapter.payload_format
    schemas = adapter.payload_format.schemas()
    assert set(adapter.payload_format.examples) <= set(schemas)
    page = unescape(client.get("/api/reference").text)
    assert all(f">{schema['title']}</a>" in page for schema in schemas.values())


@pytest.mark.parametrize("adapter", FORMATS, ids=lambda adapter: adapter.name)
def test_without_a_valid_key_each_make_is_rejected(client: FlaskClient, working_tenant: str, adapter: Adapter) -> None:
    assert adapter.payload_format
    for payload in adapter.payload_format.examples.values():
        assert client.post(f"/api/v1/events/{adapter.name}", json=payload).status_code == 401


@pytest.mark.parametrize("name", ["unknown", *(adapter.name for adapter in SNIPPETS)])
def test_a_make_without_payloads_of_its_own_has_no_route(client: FlaskClient, key: str, name: str) -> None:
    response = client.post(f"/api/v1/events/{name}", json={}, headers={"Authorization": f"Bearer {key}"})
    assert (response.status_code, response.content_type) == (404, "application/problem+json")


def test_each_adapter_is_registered_by_its_name() -> None:
    assert all(name == adapter.name for name, adapter in ADAPTERS.items())
