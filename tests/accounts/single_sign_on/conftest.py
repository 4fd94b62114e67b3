"""Fixtures: an OpenID provider that the operator's settings name."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal.accounts.single_sign_on import provider as portal_provider
from tests.openid_provider import OpenIdProvider, running
from tests.token_server import single

ChangeSettings = Callable[..., None]
BEGIN = "/sign-in/single-sign-on"


@pytest.fixture
def change_settings(app: Flask, monkeypatch: pytest.MonkeyPatch) -> ChangeSettings:
    """A function that changes settings of the operator."""

    def change(**values: Any) -> None:
        changed = app.extensions["settings"].model_copy(update=values)
        monkeypatch.setitem(app.extensions, "settings", changed)

    return change


@pytest.fixture
def provider(change_settings: ChangeSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenIdProvider]:
    """An OpenID provider at which Acme's administrator has an entry."""
    monkeypatch.setattr(portal_provider, "_documents", {})
    monkeypatch.setattr(portal_provider, "_silent_until", {})
    with running(OpenIdProvider()) as server:
        change_settings(**server.settings)
        yield server


def go(browser: FlaskClient, url: str = BEGIN) -> dict[str, str]:
    """Begin to sign in and return what the portal asks the provider."""
    answer = browser.get(url)
    assert answer.status_code == 302, answer.text
    return single(answer.location.partition("?")[2])


def come_back(browser: FlaskClient, location: str) -> TestResponse:
    """Follow the provider's redirect."""
    return browser.get(location.removeprefix("http://portal.test"))


def sign_in_at(browser: FlaskClient, server: OpenIdProvider, url: str = BEGIN) -> TestResponse:
    """Sign in at the provider and return the portal's answer."""
    return come_back(browser, server.authorize(go(browser, url)))
