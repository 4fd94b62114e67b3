"""People of the tests: invitations, and the pages that they lead to."""

from collections.abc import Callable
from email import message_from_bytes, policy
from typing import TypeVar

from flask import Flask
from flask.testing import FlaskClient

from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.database.scope import enter_scope
from portal.errors import Refusal
from portal.people import invitations
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.pages import csrf_token
from tests.smtp_peer import SmtpPeer

Result = TypeVar("Result")
NEW = {"name": "Bob Smith", "password": "correct horse battery"}


def tenant_with(domain: str) -> Tenant:
    """Return the tenant with this domain."""
    tenant = tenant_service.find(domain)
    assert tenant is not None
    return tenant


def account_with(email: str) -> Account:
    """Return the account with this email address."""
    account = account_service.find(email)
    assert account is not None
    return account


def within(app: Flask, act: Callable[[], Result]) -> Result:
    """Return what a function returns in a context of its own."""
    with app.app_context():
        return act()


def invite(app: Flask, domain: str | None, email: str, role: str, by: str) -> str:
    """Invite an email address, and return the path of its link."""
    with app.app_context():
        tenant = tenant_with(domain) if domain else None
        if tenant:
            enter_scope(tenant.id)
        link = invitations.invite(tenant, email, role, by=account_with(by))
        assert not isinstance(link, Refusal), link
        assert link.startswith("http://portal.test/invitations/")
        return link.removeprefix("http://portal.test")


def accept(browser: FlaskClient, link: str, **values: str) -> tuple[int, str]:
    """Open an invitation and accept it. Return the status, and where it leads or what the page says."""
    page = browser.get(link)
    if page.status_code != 200:
        return page.status_code, page.text
    answer = browser.post(link, data={"csrf_token": csrf_token(page.text), **values})
    return answer.status_code, answer.location or answer.text


def role_of(app: Flask, email: str, domain: str) -> str | None:
    """Return the role of an account in a tenant."""
    with app.app_context():
        account = account_service.find(email)
        return account.role_in(tenant_with(domain).id) if account else None


def texts(peer: SmtpPeer) -> dict[str, str]:
    """Return the texts of the emails to each recipient."""
    found: dict[str, str] = {}
    for received in peer.messages:
        message = message_from_bytes(received.content, policy=policy.default)
        body = message.get_body(("plain",))
        assert body is not None
        recipient = str(message["To"])
        found[recipient] = found.get(recipient, "") + body.get_content().replace("\r\n", "\n")
    return found
