"""One-time tokens in a real Postgres."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from uuid import UUID, uuid4

import pytest
from flask import Flask
from sqlalchemy import text

from portal import crypto
from portal.database import fast_sql
from portal.database.scope import owner_connection
from portal.extensions import db
from portal.provisioning import tokens
from portal.provisioning.sip_account import SipAccount
from portal.provisioning.tokens import TokenState
from portal.tenants import service as tenant_service
from tests.provisioning.example_account import issue_token, sip_account
from tests.sql import sql

PASSWORD = "open sesame"
LINE = sip_account("ann.lee", PASSWORD, display_name="Ann Lee")

EVENT = uuid4()

Issue = Callable[..., str]


@pytest.fixture
def issue(app: Flask, acme: str) -> Issue:
    """A function that issues a token of Acme, in a session of its own."""

    def issue(
        lasts: timedelta = timedelta(hours=72), event_id: UUID = EVENT, audience: str = "user", line: SipAccount = LINE
    ) -> str:
        with app.app_context():
            tenant = tenant_service.find(acme)
            assert tenant is not None
            return issue_token(tenant.id, line, lasts, event_id, audience)

    return issue


def stored() -> str:
    """Return all that the database holds of tokens, bytes as Postgres writes them and as text."""
    rows = sql("SELECT t::text, sip_account_encrypted FROM provisioning_tokens t")
    return "\n".join(f"{row} {(sealed or b'').decode('latin-1')}" for row, sealed in rows)


def test_only_the_first_request_gets_the_account(issue: Issue, context: Flask) -> None:
    token = issue()
    assert tokens.check(token)[0] is TokenState.UNSPENT
    assert tokens.spend(token) == LINE
    assert tokens.check(token)[0] is TokenState.SPENT
    assert tokens.spend(token) is TokenState.SPENT


def test_checking_does_not_spend_a_token(issue: Issue, context: Flask) -> None:
    token = issue()
    for _ in range(3):
        assert tokens.check(token)[0] is TokenState.UNSPENT
    assert tokens.spend(token) == LINE


def test_a_new_token_invalidates_the_users_unspent_ones(issue: Issue, context: Flask) -> None:
    others = issue(line=replace(LINE, username="bob"))
    older, spent = issue(audience="recipients"), issue()
    tokens.spend(spent)
    fresh = issue(event_id=uuid4())
    assert [tokens.check(each)[0] for each in (older, spent, fresh, others)] == [
        TokenState.EXPIRED,
        TokenState.SPENT,
        TokenState.UNSPENT,
        TokenState.UNSPENT,
    ]


def test_each_email_of_an_event_has_its_own_token(issue: Issue, context: Flask) -> None:
    first, second = issue(audience="recipients"), issue(audience="user")
    assert [tokens.check(each)[0] for each in (first, second)] == [TokenState.UNSPENT] * 2
    again = issue(audience="user")
    assert [tokens.check(each)[0] for each in (first, second, again)] == [
        TokenState.UNSPENT,
        TokenState.EXPIRED,
        TokenState.UNSPENT,
    ]


def test_a_token_is_stored_only_if_its_condition_is_true(app: Flask, acme: str, issue: Issue) -> None:
    older = issue()
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        expires_at = datetime.now(UTC) + timedelta(hours=1)
        condition = ("EXISTS (SELECT FROM deliveries WHERE id = %(delivery_id)s::uuid)", {"delivery_id": uuid4()})
        token, statement = tokens.new(tenant.id, LINE, expires_at, uuid4(), "user", condition)
        assert tokens.check(token)[0] is TokenState.UNKNOWN
        fast_sql.run(*statement, scope=str(tenant.id))
        assert tokens.check(token)[0] is TokenState.UNKNOWN
        assert tokens.check(older)[0] is TokenState.UNSPENT


def test_an_expired_token_cannot_be_spent(issue: Issue, context: Flask) -> None:
    token = issue(-timedelta(seconds=1))
    assert tokens.check(token)[0] is TokenState.EXPIRED
    assert tokens.spend(token) is TokenState.EXPIRED


@pytest.mark.parametrize("token", ["", "guessed", "\0", "x" * 100_000, "\udc80"])
def test_an_unknown_token_cannot_be_spent(issue: Issue, context: Flask, token: str) -> None:
    issue()
    assert tokens.check(token)[0] is TokenState.UNKNOWN
    assert tokens.spend(token) is TokenState.UNKNOWN


def test_a_suspended_tenants_token_works_again_later(issue: Issue, context: Flask, acme: str) -> None:
    token = issue()
    tenant = tenant_service.find(acme)
    assert tenant is not None
    tenant_service.suspend(tenant)
    assert tokens.check(token)[0] is TokenState.SUSPENDED
    assert tokens.spend(token) is TokenState.SUSPENDED
    tenant_service.resume(tenant)
    assert tokens.spend(token) == LINE


def test_of_simultaneous_requests_one_gets_the_account(app: Flask, issue: Issue) -> None:
    token, together = issue(), Barrier(4)

    def spend() -> SipAccount | TokenState:
        with app.app_context():
            db.session.execute(text("SELECT 1"))  # the connection is open before the race begins
            together.wait(timeout=60)
            return tokens.spend(token)

    with ThreadPoolExecutor(4) as threads:
        results = [future.result() for future in [threads.submit(spend) for _ in range(4)]]
    assert results.count(LINE) == 1
    assert results.count(TokenState.SPENT) == 3


def test_a_second_request_waits_for_the_firsts_commit(app: Flask, issue: Issue) -> None:
    token = issue()
    with app.app_context(), ThreadPoolExecutor(1) as thread:

        def spend() -> SipAccount | TokenState:
            with app.app_context():
                return tokens.spend(token)

        with owner_connection() as first:
            first.execute(text("SELECT 1 FROM provisioning_tokens FOR UPDATE"))
            second = thread.submit(spend)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.2)
            first.execute(text("UPDATE provisioning_tokens SET spent_at = now(), sip_account_encrypted = NULL"))
        assert second.result(timeout=60) is TokenState.SPENT


def test_the_database_contains_no_secret_in_clear_text(issue: Issue, context: Flask) -> None:
    token = issue()
    assert LINE.ha1 is not None
    row = stored()
    assert crypto.hash_token(token).hex() in row, "the row is the one that is meant"
    for secret in (token, PASSWORD, LINE.ha1, "Ann Lee"):
        assert secret not in row
        assert secret.encode().hex() not in row


def test_a_spent_account_is_erased(issue: Issue, context: Flask) -> None:
    tokens.spend(issue())
    assert [*sql("SELECT sip_account_encrypted, spent_at IS NOT NULL FROM provisioning_tokens")] == [(None, True)]


def test_an_account_moved_to_another_tenant_cannot_be_decrypted(issue: Issue, context: Flask, globex: str) -> None:
    token = issue()
    sql("UPDATE provisioning_tokens SET tenant_id = (SELECT id FROM tenants WHERE domain = :domain)", domain=globex)
    with pytest.raises(crypto.UnreadableSecret):
        tokens.spend(token)
    assert tokens.check(token)[0] is TokenState.UNSPENT


def test_expired_accounts_are_erased_and_others_kept(issue: Issue, context: Flask) -> None:
    expired, unspent = issue(-timedelta(seconds=1)), issue(audience="recipients")
    tokens.erase_expired()
    kept = sql("SELECT count(sip_account_encrypted), count(*) FROM provisioning_tokens")[0]
    assert kept == (1, 2)
    assert tokens.check(expired)[0] is TokenState.EXPIRED
    assert tokens.spend(unspent) == LINE


def test_old_tokens_are_deleted_unless_still_valid(issue: Issue, context: Flask) -> None:
    spent = issue()
    tokens.spend(spent)
    expired, unspent = issue(-timedelta(seconds=1)), issue(audience="recipients")
    tokens.erase_expired()
    tokens.delete_old(before=UUID(int=0))
    assert tokens.check(spent)[0] is TokenState.SPENT
    tokens.delete_old(before=UUID(int=2**128 - 1))
    assert [tokens.check(each)[0] for each in (spent, expired)] == [TokenState.UNKNOWN] * 2
    assert tokens.spend(unspent) == LINE
