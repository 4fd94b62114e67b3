"""The description of the webhook is valid, and is what the code does."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from portal.notifications.kinds import KINDS, EventKind
from tests.ready import Post
from tests.smtp_peer import SmtpPeer


@pytest.fixture
def description(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    described: dict[str, Any] = answer.get_json()
    return described


def fits(description: dict[str, Any], schema: str, value: Any) -> bool:
    reference = {"$ref": f"#/components/schemas/{schema}", "components": description["components"]}
    return bool(Draft202012Validator(reference).is_valid(value))


def test_it_is_valid_openapi_3_1(description: dict[str, Any]) -> None:
    assert description["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(description).validate()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_sample_fits_and_is_accepted(description: dict[str, Any], post: Post, ready: str, kind: EventKind) -> None:
    assert fits(description, "Event", {"type": kind.type, "data": dict(kind.sample)})
    data = kind.sample_data(datetime.now(UTC))
    assert post(kind.type, data.public() | data.secrets()).json["status"] == "sent"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_its_example_is_accepted_on_any_day(
    description: dict[str, Any], post: Post, ready: str, kind: EventKind
) -> None:
    schemas = description["components"]["schemas"].values()
    (example,) = (each["example"] for each in schemas if each.get("example", {}).get("type") == kind.type)
    assert post(kind.type, example["data"]).json["status"] == "sent"
    a_moment = re.compile(r"\d{4}-\d\d-\d\d")
    assert not a_moment.search(json.dumps(example))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_lacks_a_required_field_neither_fits_nor_is_accepted(
    description: dict[str, Any], post: Post, acme: str, kind: EventKind
) -> None:
    for name in (name for name, field in kind.fields.model_fields.items() if field.is_required()):
        data = {key: value for key, value in kind.sample.items() if key not in (name, "requested_at")}
        assert not fits(description, "Event", {"type": kind.type, "data": data})
        answer = post(kind.type, data)
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json["errors"]] == [f"data.{name}"]


@pytest.mark.parametrize("script", [{}, {"rcpt": ["250 ok", "550 5.1.1 no"]}, {"dot": "451 later"}, {"mail": "550 no"}])
def test_answers_are_as_described(
    description: dict[str, Any], post: Post, ready: str, peer: SmtpPeer, script: dict[str, Any]
) -> None:
    peer.script = script
    answer = post(id="one")
    assert fits(description, "EventReport", answer.json)
    assert fits(description, "EventReport", post(id="one").json)
    assert not fits(description, "EventReport", answer.json | {"status": "queued"})


def test_every_problem_is_described(description: dict[str, Any], app: Flask, post: Post, acme: str) -> None:
    described = description["paths"]["/api/v1/events"]["post"]["responses"]
    assert set(described) == {"200", "400", "401", "403", "409", "413", "415", "422", "429", "503"}
    assert fits(description, "Problem", post("queue.exploded").json)
