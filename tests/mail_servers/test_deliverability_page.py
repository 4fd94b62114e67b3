"""The checks of the sender's domain on the page: rows below the steps of the test email."""

import re
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.mail_servers import service as mail_server_service
from tests.dns_server import DnsServer, dns_server
from tests.mail_servers.test_deliverability import set_up
from tests.pages import HTMX, csrf_token, post
from tests.smtp_peer import SmtpPeer
from tests.tenant_fixtures import entered

__all__ = ["dns_server"]


@pytest.fixture
def page(acme: str) -> str:
    return f"/tenants/{acme}/mail-server"


def send(browser: FlaskClient, page: str, peer: SmtpPeer, *, htmx: bool) -> str:
    values: dict[str, Any] = {"host": "127.0.0.1", "port": str(peer.port), "encryption": "none"}
    values |= {"provider": "smtp", "auth_mode": "none", "sender_email": "pbx@acme.com"}
    return post(browser, page, f"{page}/test", htmx=htmx, **values).text


@pytest.mark.parametrize("htmx", [True, False])
def test_rows(dns_server: DnsServer, admin: FlaskClient, page: str, htmx: bool) -> None:
    set_up(dns_server, spf="v=spf1 <script>alert(1)</script>\x1b[31m -all")
    with SmtpPeer() as peer:
        html = send(admin, page, peer, htmx=htmx)
        assert len(peer.messages) == 1
    assert "the mail server accepted the test email" in html
    steps = html.rpartition("<ol")[2]
    assert re.findall(r"<strong>(MX|SPF|DKIM|DMARC)</strong>", steps) == ["MX", "SPF", "DKIM", "DMARC"]
    assert "v=spf1 &lt;script&gt;alert(1)&lt;/script&gt;\ufffd[31m -all" in steps
    assert "invalid at “&lt;script&gt;alert(1)&lt;/script&gt;\ufffd[31m”" in steps
    assert "<script>alert" not in html


def test_a_long_record_is_cut(dns_server: DnsServer, admin: FlaskClient, page: str) -> None:
    set_up(dns_server, spf="v=spf1 " + "x" * 3000, dmarc="v=DMARC1; p=none; " + "y" * 3000)
    with SmtpPeer() as peer:
        html = send(admin, page, peer, htmx=False)
    assert "x" * 250 in html
    assert "x" * 301 not in html
    assert "y" * 301 not in html


def test_the_shared_server_is_not_revealed(app: Flask, dns_server: DnsServer, admin: FlaskClient, page: str) -> None:
    set_up(dns_server)
    with SmtpPeer() as peer, app.app_context():
        mail_server_service.save(None, replace(entered(peer.port), sender_email="pbx@acme.com"))
        mail_server_service.share(True)
        data = {"csrf_token": csrf_token(admin.get(page).text)}
        html = admin.post(f"{page}/test", data=data, headers=HTMX, buffered=True).text
        assert len(peer.messages) == 1
    assert "SPF" not in html
    assert dns_server.queries == []
