"""The pages' forms and addresses at random: a person is told what is wrong, and nothing breaks."""

import re
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from tests.pages import csrf_token
from tests.security.conftest import OF_PAGES
from tests.security.test_fuzz_mail import TEXT
from tests.security.test_headers import Content, assert_guarded

pytestmark = pytest.mark.slow

WIRE = st.one_of(TEXT, st.text(max_size=30), st.sampled_from(["", "0", "-1", "9" * 30, "1e9", "x" * 3000, "on", "y"]))


def fields(page: str) -> list[str]:
    """Return the names of what can be filled in."""
    return sorted({name for name in re.findall(r'name="([\w-]+)"', page) if name not in {"csrf_token", "viewport"}})


@pytest.mark.parametrize(
    "address",
    [
        "/system/tenants/new",
        "/system/tenants/acme.example",
        "/system/mail-server",
        "/tenants/acme.example/mail-server",
        "/tenants/acme.example/notifications",
        "/account/password",
        "/sign-in",
        "/forgotten-password",
    ],
)
def test_any_text_in_a_form(app: Flask, system: FlaskClient, client: FlaskClient, acme: str, address: str) -> None:
    browser = client if address in {"/sign-in", "/forgotten-password"} else system
    page = browser.get(address).text
    token, names = csrf_token(page), fields(page)
    actions = sorted({*re.findall(r'action="(/[^"]*)"', page), address} - {"/sign-out", f"{address}/test"})
    actions = [each for each in actions if each.startswith(address) and "suspend" not in each and "/test" not in each]
    assert names

    @OF_PAGES
    @given(st.sampled_from(actions), st.fixed_dictionaries({}, optional=dict.fromkeys(names, WIRE)))
    def fill_in(action: str, values: dict[str, Any]) -> None:
        wire = {name: value.encode("utf-8", "surrogatepass") for name, value in values.items()}
        answer = browser.post(action, data={**wire, "csrf_token": token})
        assert answer.status_code < 500, (action, values)
        assert_guarded(answer)
        if answer.mimetype == "text/html":
            assert not Content(answer.text).faults
            assert "<script>alert" not in answer.text

    fill_in()


def test_any_address(app: Flask, system: FlaskClient, client: FlaskClient, acme: str) -> None:
    templates = [rule.rule for rule in app.url_map.iter_rules() if "<" in rule.rule and "GET" in (rule.methods or ())]

    @OF_PAGES
    @given(st.sampled_from(sorted(templates)), TEXT, TEXT)
    def visit(template: str, text: str, query: str) -> None:
        part = quote(text.encode("utf-8", "surrogatepass"), safe="") or "x"
        value = quote(query.encode("utf-8", "surrogatepass"), safe="")
        address = re.sub(r"<[^>]*>", lambda _: part, template)
        for browser in (system, client):
            with closing(browser.get(f"{address}?q={value}&after={value}&next={value}&status={value}")) as answer:
                assert answer.status_code < 500, address
                assert_guarded(answer)
                assert re.match(r"/(?![/\\])|http://portal\.test/", answer.headers.get("Location", "/"))
                if answer.mimetype == "text/html":
                    assert not Content(answer.text).faults

    visit()
