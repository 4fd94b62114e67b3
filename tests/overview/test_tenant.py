from flask.testing import FlaskClient

from tests.ready import Post, key, peer, post, ready

__all__ = ["key", "peer", "post", "ready"]


def test_x(admin: FlaskClient, ready: str, post: Post) -> None:
    post()
    assert admin.get(f"/tenants/{ready}/overview").status_code == 200
