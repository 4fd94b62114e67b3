"""Fixtures for the tests of metrics."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from portal.monitoring.counters import take
from tests.tenant_fixtures import key, peer, post, system_key, working_tenant

__all__ = ["key", "peer", "post", "system_key", "working_tenant"]

TOKEN = "0123456789-abcdefghij-klmnopqrst-uvwxyz"

Samples = dict[str, float]
Scrape = Callable[[], Samples]


def samples(text: str) -> Samples:
    """Return the value of each sample by its name with its labels, as Prometheus writes it: `name{label="value"}`."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def with_token(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """The portal with METRICS_TOKEN. Nothing is counted yet."""
    settings = app.extensions["settings"]
    changes = {"metrics_token": SecretStr(TOKEN), "database_disk": settings.var_dir}
    settings = settings.model_copy(update=changes)
    monkeypatch.setitem(app.extensions, "settings", settings)
    take_all()
    yield app
    take_all()


def take_all() -> None:
    """Forget what this process has counted."""
    take(defaultdict(float))


@pytest.fixture
def scrape_text(with_token: Flask, client: FlaskClient) -> Callable[[], str]:
    """A function that reads /metrics."""

    def scrape() -> str:
        response = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert response.status_code == 200
        assert response.content_type.startswith("text/plain; version=")
        return response.text

    return scrape


@pytest.fixture
def scrape(scrape_text: Callable[[], str]) -> Scrape:
    """A function that reads /metrics and returns the samples."""
    return lambda: samples(scrape_text())
