"""The page of the API reference says what the OpenAPI description says, and all of it; examples are true."""

import re
from html import unescape
from typing import Any

import pytest
from flask.testing import FlaskClient

from portal.pbx import examples
from portal.pbx.openapi import PROBLEMS, description
from tests.pbx.test_openapi import description as described
from tests.pbx.test_openapi import fits
from tests.ready import CALL_LOST, Post, read

__all__ = ["described"]


@pytest.fixture
def page(client: FlaskClient) -> str:
    """What a stranger reads."""
    answer = client.get("/api/reference")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    return unescape(answer.text)


def test_each_operation_event_field_and_problem_is_there(page: str) -> None:
    described = description("http://portal.test")
    for path, item in described["paths"].items():
        assert f"http://portal.test{path}" in page
        for operation in item.values():
            assert operation["summary"] in page
    schemas = described["components"]["schemas"]
    for name in ("UserCreated", "SlaBreached", "CallbackCompleted", "CallbackFailed", "CallLost", "EventReport"):
        for field, schema in schemas[name]["properties"].items():
            assert f"<code>{field}</code>" in page
            assert schema.get("description", "").replace("`", "") in re.sub(r"</?code>", "", page), (name, field)
    for status in PROBLEMS:
        assert f'id="problem-{status}"' in page


def test_it_is_english_for_every_reader(client: FlaskClient, page: str) -> None:
    german = unescape(client.get("/api/reference", headers={"Accept-Language": "de"}).text)
    assert '<html lang="en">' in german
    token = re.compile(r'"X-CSRFToken": "[^"]*"')
    assert token.sub("", german) == token.sub("", page)


def test_every_anchor_leads_somewhere_and_once(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_every_field_of_an_event_says_what_it_means() -> None:
    schemas = description("")["components"]["schemas"]
    for schema in (each for name, each in schemas.items() if name.endswith("Event") and "properties" in each):
        assert all("description" in each or "$ref" in each for each in schema["properties"].values())
        data = schemas[schema["properties"]["data"]["$ref"].rpartition("/")[2]]
        assert all(each["description"] for each in data["properties"].values())


@pytest.mark.parametrize("name", examples.REPORTS)
def test_the_examples_of_answers_fit(described: dict[str, Any], name: str) -> None:
    assert fits(described, "EventReport", examples.REPORTS[name]["value"])


@pytest.mark.parametrize("name", examples.PORTSIP_PAYLOADS)
def test_the_examples_of_portsip_fit(described: dict[str, Any], name: str) -> None:
    payload = examples.PORTSIP_PAYLOADS[name]
    assert fits(described, "PortsipPayload", payload)
    assert all(fits(described, "PortsipReport", each["value"]) for each in examples.PORTSIP_REPORTS.values())


@pytest.mark.parametrize("status", PROBLEMS)
def test_the_examples_of_problems_fit(described: dict[str, Any], status: int) -> None:
    assert fits(described, "Problem", examples.problem(status, PROBLEMS[status][0]))


def test_problems_are_told_in_these_words(client: FlaskClient, post: Post, ready: str, key: str) -> None:
    post(id="call-4711")
    told = {
        409: post(id="call-4711", data=CALL_LOST | {"waited_seconds": 1}),
        422: post(data={"queue_number": "8000"}),
        400: read(
            client.post(
                "/api/v1/events", data="{x", content_type="application/json", headers={"Authorization": f"Bearer {key}"}
            )
        ),
        401: read(client.post("/api/v1/events", json={})),
        403: post(tenant="nobody.example"),
    }
    for status, answer in told.items():
        assert answer.json == examples.problem(status, PROBLEMS[status][0])
