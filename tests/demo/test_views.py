from collections.abc import Callable, Iterator
from email.message import EmailMessage

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal import create_app
from portal.config import Settings
from portal.demo.mailbox import Mailbox
from tests.conftest import close_connections
from tests.demo.example_email import PNG, mail
from tests.pages import HTMX


@pytest.fixture(scope="session")
def demo(built_app: Flask, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The portal as the demo runs it."""
    app = create_app(settings.model_copy(update={"demo_mail_dir": tmp_path_factory.mktemp("mail")}))
    yield app
    close_connections(app)


@pytest.fixture
def browser(demo: Flask) -> FlaskClient:
    return demo.test_client()


@pytest.fixture
def capture(demo: Flask) -> Callable[[EmailMessage], str]:
    """A function that catches a mail and returns the address of its page."""

    def catch(message: EmailMessage) -> str:
        mailbox = Mailbox(demo.extensions["settings"].demo_mail_dir)
        mailbox.add(message.as_bytes())
        return f"/demo/mail/{mailbox.numbers()[0]}"

    return catch


def test_strangers_read_the_list_and_an_email(browser: FlaskClient, capture: Callable[[EmailMessage], str]) -> None:
    address = capture(mail("<p>Hello</p>"))
    assert f'href="{address}"' in browser.get("/demo/mail").get_data(as_text=True)
    fragment = browser.get("/demo/mail", headers=HTMX).get_data(as_text=True)
    assert fragment.lstrip().startswith('<div id="captured-email"')
    page = browser.get(address).get_data(as_text=True)
    for shown in ("Hello &amp; welcome", "Acme &lt;a@x.example&gt;", "b@x.example", "The text alternative"):
        assert shown in page
    assert f'sandbox="allow-popups allow-popups-to-escape-sandbox" src="{address}/html"' in page


def test_an_email_runs_no_script_and_loads_no_external_content(
    browser: FlaskClient, capture: Callable[[EmailMessage], str]
) -> None:
    address = capture(mail('<html><head><title>x</title></head><script>alert(1)</script><img src="cid:qr@x.example">'))
    answer = browser.get(f"{address}/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "sandbox allow-popups" in policy
    assert "allow-scripts" not in policy
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert '<head><base target="_blank">' in answer.get_data(as_text=True)


def test_pictures_come_from_the_message(browser: FlaskClient, capture: Callable[[EmailMessage], str]) -> None:
    address = capture(mail('<img src="cid:qr@x.example">'))
    html = browser.get(f"{address}/html").get_data(as_text=True)
    assert f'<img src="{address}/parts/qr@x.example">' in html
    picture = browser.get(f"{address}/parts/qr@x.example")
    assert (picture.content_type, picture.data) == ("image/png", PNG)
    assert browser.get(f"{address}/parts/other@x.example").status_code == 404


@pytest.mark.parametrize("address", ["/demo/mail/1", "/demo/mail/1/html", "/demo/mail/..%2Fsecrets"])
def test_unknown_addresses_are_not_found(browser: FlaskClient, address: str) -> None:
    assert browser.get(address).status_code == 404


def test_only_the_demo_has_these_pages(client: FlaskClient) -> None:
    assert client.get("/demo/mail").status_code == 404
