"""The health check."""

from flask.testing import FlaskClient

from portal import create_app
from portal.config import Settings


def test_a_working_portal_is_healthy(client: FlaskClient) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok"})


def test_a_portal_without_its_database_is_unavailable(settings: Settings) -> None:
    unreachable = settings.model_copy(
        update={"database_url": "postgresql+psycopg://127.0.0.1:1/portal?connect_timeout=1"}
    )
    answer = create_app(unreachable).test_client().get("/healthz")
    assert answer.status_code == 503
    assert "database" in answer.get_json()["reason"]
