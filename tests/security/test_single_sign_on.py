"""Attacks on single sign-on: each is tried, and fails."""

import base64
import hmac
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from portal import bounded_requests
from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.accounts.single_sign_on import id_token, views
from portal.extensions import db
from portal.people import members
from tests.accounts.single_sign_on.conftest import (
    BEGIN,
    ChangeSettings,
    change_settings,
    come_back,
    go,
    provider,
    sign_in_at,
)
from tests.authenticator import give_code, is_signed_in, set_up
from tests.conftest import SignIn, make_account
from tests.mail_servers.test_account_email import link_in, received, request_reset, use_server
from tests.openid_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    DISCOVERY,
    KEYS,
    TOKEN,
    OpenIdProvider,
    rsa_key,
)
from tests.pages import PASSWORD, csrf_token, post
from tests.security import secret_canaries
from tests.smtp_peer import SmtpPeer
from tests.sql import sql

__all__ = ["change_settings", "provider"]

EMAIL = "admin@acme.example"
CALLBACK = f"{BEGIN}/callback"
NOW = int(time.time())


@pytest.fixture(autouse=True)
def account(app: Flask, acme: str) -> str:
    """The victim's account."""
    make_account(app, EMAIL, administers=acme)
    return EMAIL


def refused(browser: FlaskClient, server: OpenIdProvider) -> bool:
    """Return whether signing in at the provider is refused, without a session."""
    answer = sign_in_at(browser, server)
    return answer.status_code == 400 and not is_signed_in(browser)


@pytest.mark.slow
@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"iss": ["https://evil.example"]},
        {"aud": "another-client"},
        {"aud": None},
        {"aud": []},
        {"aud": [CLIENT_ID, "another-client"]},  # without azp
        {"aud": [CLIENT_ID, "another-client"], "azp": "another-client"},
        {"azp": "another-client"},
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": ""},
        {"exp": NOW - 3600},
        {"exp": None},
        {"exp": "never"},
        {"exp": float("inf")},
        {"exp": True},
        {"iat": NOW + 3600},
        {"iat": NOW - 3600},
        {"iat": None},
        {"nbf": NOW + 3600},
        {"sub": None},
        {"sub": ""},
        {"sub": 1},
        {"sub": "x" * 256},
        {"sub": "a\x00b"},
    ],
)
def test_an_id_token_for_another_purpose_signs_nobody_in(
    client: FlaskClient, provider: OpenIdProvider, claims: dict[str, Any]
) -> None:
    provider.claims |= claims
    assert refused(client, provider)


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def unsigned(server: OpenIdProvider, claims: dict[str, Any]) -> str:
    header = json.dumps({"alg": "none", "kid": server.key.kid}).encode()
    return f"{encoded(header)}.{encoded(json.dumps(claims).encode())}."


def signed_with_the_public_key(server: OpenIdProvider, claims: dict[str, Any]) -> str:
    assert isinstance(server.key, RSAKey)
    return with_hmac(server, claims, server.key.as_pem(private=False))


def signed_with_the_secret(server: OpenIdProvider, claims: dict[str, Any]) -> str:
    return with_hmac(server, claims, CLIENT_SECRET.encode())


def with_hmac(server: OpenIdProvider, claims: dict[str, Any], secret: bytes) -> str:
    header = json.dumps({"alg": "HS256", "kid": server.key.kid}).encode()
    signed = f"{encoded(header)}.{encoded(json.dumps(claims).encode())}"
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"


def signed_by_a_stranger(server: OpenIdProvider, claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "RS256", "kid": server.key.kid}, claims, rsa_key("stranger"), ["RS256"])


def with_its_own_key(server: OpenIdProvider, claims: dict[str, Any]) -> str:
    key = rsa_key("stranger")
    header = {"alg": "RS256", "kid": "stranger", "jwk": key.as_dict(private=False), "jku": f"{server.issuer}/evil"}
    return jwt.encode(header, claims, key, ["RS256"])


def changed_after_signing(server: OpenIdProvider, claims: dict[str, Any]) -> str:
    header, _, signature = jwt.encode({"alg": "RS256", "kid": server.key.kid}, claims, server.key, ["RS256"]).split(".")
    return f"{header}.{encoded(json.dumps({**claims, 'sub': 'victim'}).encode())}.{signature}"


def with_a_critical_extension(server: OpenIdProvider, claims: dict[str, Any]) -> str:
    header = {"alg": "RS256", "kid": server.key.kid, "crit": ["exp"], "exp": 1}
    _, payload, signature = jwt.encode({"alg": "RS256"}, claims, server.key, ["RS256"]).split(".")
    return f"{encoded(json.dumps(header).encode())}.{payload}.{signature}"


@pytest.mark.parametrize(
    "forge",
    [
        unsigned,
        signed_with_the_public_key,
        signed_with_the_secret,
        signed_by_a_stranger,
        with_its_own_key,
        changed_after_signing,
        with_a_critical_extension,
        lambda _server, _claims: "",
        lambda _server, _claims: "a.b",
        lambda _server, _claims: "é.é.é",
        lambda _server, _claims: "e30.e30.e30",
        lambda _server, _claims: "a.b.c.d.e",
        lambda _server, _claims: "x" * 50_000,
    ],
)
def test_a_forged_id_token_signs_nobody_in(
    client: FlaskClient, provider: OpenIdProvider, forge: Callable[[OpenIdProvider, dict[str, Any]], str]
) -> None:
    provider.sign = forge
    assert refused(client, provider)


@pytest.mark.parametrize("use", ["oct", "enc", "without an id"])
def test_a_key_is_used_for_what_it_is(client: FlaskClient, provider: OpenIdProvider, use: str) -> None:
    """A shared secret, a key for encryption and one of several keys without an id verify nothing."""
    keys = [dict(rsa_key("first").as_dict(private=False))]
    if use == "oct":
        provider.key, provider.algorithm = OctKey.generate_key(256, {"kid": "shared"}), "HS256"
        keys = [dict(provider.key.as_dict(private=True))]
    elif use == "enc":
        keys[0]["use"] = "enc"
    else:
        provider.sign = lambda server, claims: jwt.encode({"alg": "RS256"}, claims, server.key, ["RS256"])
        keys.append(dict(rsa_key("second").as_dict(private=False)))
    provider.answers[KEYS] = (200, json.dumps({"keys": keys}).encode())
    assert refused(client, provider)


@pytest.mark.parametrize("algorithm", ["ES256", "PS256"])
def test_other_algorithms_of_public_keys_work(client: FlaskClient, provider: OpenIdProvider, algorithm: str) -> None:
    """So that the forgeries above are not rejected for a wrong reason."""
    provider.key = (
        ECKey.generate_key("P-256", {"kid": "curve"})
        if algorithm == "ES256"
        else RSAKey.import_key(rsa_key("first").as_dict(private=True) | {"alg": "PS256"})
    )
    provider.algorithm = algorithm
    sign_in_at(client, provider)
    assert is_signed_in(client)


def test_a_redirect_of_another_session_signs_nobody_in(
    app: Flask, client: FlaskClient, provider: OpenIdProvider
) -> None:
    """An attacker has the victim follow the redirect that brings the attacker's own identity (login CSRF)."""
    attacker = app.test_client()
    back = provider.authorize(go(attacker))
    assert come_back(client, back).status_code == 400
    go(client)
    assert come_back(client, back).status_code == 400
    assert not is_signed_in(client)
    assert provider.count(TOKEN) == 0
    come_back(attacker, back)
    assert is_signed_in(attacker), "a forged redirect did not end it"


def test_a_forged_or_late_or_repeated_redirect_signs_nobody_in(
    app: Flask, client: FlaskClient, provider: OpenIdProvider
) -> None:
    state = go(client)["state"]
    for forged in ("", "x", state[:-1], state + "x", "é"):
        assert client.get(f"{CALLBACK}?code=evil&state={forged}").status_code == 400
    back = provider.authorize(go(client))
    with client.session_transaction() as cookie:
        cookie[views.PENDING] = {**cookie[views.PENDING], "began_at": time.time() - views.LIFETIME - 60}
    assert come_back(client, back).status_code == 400
    assert provider.count(TOKEN) == 0
    back = provider.authorize(go(client))
    stolen = app.test_client()
    value = client.get_cookie("session")
    assert value is not None
    stolen.set_cookie("session", value.value)
    come_back(client, back)
    assert come_back(stolen, back).status_code == 400, "the provider takes the code once"
    assert not is_signed_in(stolen)


def test_a_stolen_code_is_worth_nothing_in_another_session(
    app: Flask, client: FlaskClient, provider: OpenIdProvider
) -> None:
    """It is bound to the verifier of the one that began it."""
    code = provider.authorize(go(client)).partition("code=")[2].partition("&")[0]
    attacker = app.test_client()
    state = go(attacker)["state"]
    answer = attacker.get(f"{CALLBACK}?code={code}&state={state}&iss={provider.issuer}")
    assert (answer.status_code, is_signed_in(attacker)) == (400, False)


@pytest.mark.parametrize("named", ["https://evil.example", "", None])
def test_a_redirect_of_another_issuer_is_refused_before_its_code_is_used(
    client: FlaskClient, provider: OpenIdProvider, named: str | None
) -> None:
    """Mix-up: an honest provider's code would be sent to an attacker's (RFC 9207)."""
    provider.redirect["iss"] = named
    assert refused(client, provider)
    assert provider.count(TOKEN) == 0


def test_a_provider_that_does_not_name_itself_may_be_silent_but_not_lie(
    app: Flask, client: FlaskClient, provider: OpenIdProvider
) -> None:
    provider.metadata["authorization_response_iss_parameter_supported"] = False
    provider.redirect["iss"] = "https://evil.example"
    assert refused(client, provider)
    provider.redirect["iss"] = None
    sign_in_at(client, provider)
    assert is_signed_in(client)


@pytest.mark.slow
@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
        {"token_endpoint": "http://evil.example/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": None},
        {"jwks_uri": "http://evil.example/keys"},
        {"jwks_uri": "https://evil.example/keys\nERROR forged entry in the log"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": ["https://evil.example"]},
        {"userinfo_endpoint": "ftp://evil.example"},
    ],
)
def test_a_discovery_document_that_leads_elsewhere_is_not_followed(
    client: FlaskClient, provider: OpenIdProvider, metadata: dict[str, Any]
) -> None:
    provider.metadata |= metadata
    assert client.get(BEGIN).status_code == 503


def test_userinfo_of_somebody_else_finds_no_account(client: FlaskClient, provider: OpenIdProvider) -> None:
    provider.thin, provider.userinfo_subject = True, "person-2"
    assert refused(client, provider)


@pytest.mark.parametrize("claim", ["email_verified", "xms_edov"])
def test_an_id_token_verifies_no_email_address_of_the_userinfo(
    client: FlaskClient, provider: OpenIdProvider, claim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(id_token, "MICROSOFT_HOSTS", {"127.0.0.1"})
    provider.thin, provider.claims = True, {claim: True}
    provider.answers["/userinfo"] = (200, json.dumps({"sub": provider.subject, "email": EMAIL}).encode())
    assert sign_in_at(client, provider).status_code == 403
    assert not is_signed_in(client)


@pytest.mark.parametrize("said", [{"amr": [{"pwd": 1}, ["mfa"]]}, {"acr": {"a": 1}}, {"amr": "mfa"}])
def test_an_odd_second_factor_is_none(
    client: FlaskClient, provider: OpenIdProvider, change_settings: ChangeSettings, said: dict[str, Any]
) -> None:
    change_settings(sso_two_factor=("mfa",))
    provider.claims |= said
    assert sign_in_at(client, provider).status_code == 302
    with client.session_transaction() as cookie:
        assert not cookie["provider_two_factor"]


@pytest.mark.slow
@pytest.mark.parametrize("path", [DISCOVERY, KEYS, TOKEN, "/userinfo"])
@pytest.mark.parametrize(
    "answer", [(302, b""), (200, b"[" * 50_000), (200, b'{"a": "' + b"x" * 200_000), (200, b"null"), (404, b"{}")]
)
def test_an_odd_response_ends_in_a_page(
    client: FlaskClient, provider: OpenIdProvider, path: str, answer: tuple[int, bytes]
) -> None:
    provider.thin, provider.answers[path] = True, answer
    response = client.get(BEGIN) if path == DISCOVERY else sign_in_at(client, provider)
    assert response.status_code in {400, 503}
    assert not is_signed_in(client)
    assert provider.count("/elsewhere") == 0, "no redirect is followed"


def test_a_slow_response_is_given_up(
    client: FlaskClient, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_requests, "TOTAL_TIMEOUT", 0.2)
    provider.seconds_per_byte = 0.05
    began = time.monotonic()
    assert client.get(BEGIN).status_code == 503
    assert time.monotonic() - began < 10


def test_the_session_of_a_stranger_is_not_kept(app: Flask, client: FlaskClient, provider: OpenIdProvider) -> None:
    """Session fixation: what an attacker planted in the cookie is gone after signing in."""
    back = provider.authorize(go(client))
    with client.session_transaction() as cookie:
        cookie["planted"] = "yes"
    come_back(client, back)
    assert is_signed_in(client)
    with client.session_transaction() as cookie:
        assert not {"planted", views.PENDING, "proven_identity"} & set(cookie)


@pytest.mark.parametrize(
    "url",
    [
        *("https://evil.example", "//evil.example", "///evil.example", "javascript:alert(1)"),
        *("\\\\evil.example", "/\\evil.example"),
    ],
)
def test_it_leads_to_no_other_site(client: FlaskClient, provider: OpenIdProvider, url: str) -> None:
    for long in ("", "x" * 5000):
        answer = sign_in_at(client, provider, f"{BEGIN}?next={url}{long}")
        assert (answer.status_code, answer.location) == (302, "/")
        client.delete_cookie("session")


def test_the_code_of_another_account_does_not_complete_a_sign_in(
    app: Flask, sign_in: SignIn, client: FlaskClient, provider: OpenIdProvider
) -> None:
    own_phone, _ = set_up(sign_in("eve@evil.example"))
    with app.app_context():
        victim = account_service.find(EMAIL)
        assert victim is not None
        victim.tf_totp_secret = app.extensions["security"].totp_factory.generate_totp_secret()
        db.session.commit()
    sign_in_at(client, provider)
    give_code(client, own_phone.code(1))
    assert not is_signed_in(client)


def test_a_deactivated_account_does_not_finish_with_its_code(
    app: Flask, sign_in: SignIn, client: FlaskClient, provider: OpenIdProvider
) -> None:
    with app.app_context():
        sql("DELETE FROM accounts")
    phone, _ = set_up(sign_in(EMAIL))
    sign_in_at(client, provider)
    with app.app_context():
        found = account_service.find(EMAIL)
        assert found is not None
        members.set_active(found, False, by=None)
    give_code(client, phone.code(1))
    assert not is_signed_in(client)


def test_a_link_from_before_passwords_were_off_sets_none(
    app: Flask, client: FlaskClient, provider: OpenIdProvider, change_settings: ChangeSettings
) -> None:
    with SmtpPeer() as server:
        use_server(app, server.port)
        request_reset(client, EMAIL)
        path = link_in(received(server), "plain")
        change_settings(sso_only=True)
        with app.app_context():
            before = db.session.get_one(Account, 1).password
        answer = post(client, path, password="another long password", password_confirm="another long password")
        assert "Passwords are off" in answer.text
        with app.app_context():
            assert db.session.get_one(Account, 1).password == before
        count = len(server.messages)
        said = request_reset(client, EMAIL), request_reset(client, "nobody@acme.example")
        assert said[0] == said[1]
    assert len(server.messages) == count, "no email is sent"


def test_whether_a_password_was_right_or_break_glass_is_not_revealed(
    app: Flask, client: FlaskClient, provider: OpenIdProvider, change_settings: ChangeSettings
) -> None:
    make_account(app, "root@pbx.example", system=True)
    with app.app_context():
        root = account_service.find("root@pbx.example")
        assert root is not None
        account_service.set_break_glass(root, True)
    change_settings(sso_only=True)
    pages = []
    wrong = ((email, "wrong") for email in (EMAIL, "root@pbx.example", "x@y.example"))
    for email, password in ((EMAIL, PASSWORD), *wrong):
        page = post(client, "/sign-in", email=email, password=password).text
        token = csrf_token(page)
        pages.append(page.replace(email, "").replace(token, "").split("<main")[1])
    assert len(set(pages)) == 1


def test_planted_secrets_are_in_no_log_and_no_page(
    app: Flask, client: FlaskClient, acme: str, provider: OpenIdProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    for denial, answer in ((None, None), ("server_error", None), (None, (400, b'{"error": "invalid_client"}'))):
        provider.denial, provider.answers = denial, {TOKEN: answer} if answer else {}
        browser = app.test_client()
        back = provider.authorize(go(browser))
        with browser.session_transaction() as cookie:
            pending = cookie[views.PENDING]
        code = back.partition("code=")[2].partition("&")[0]
        answer_page = come_back(browser, back)
        for text in (caplog.text, answer_page.text):
            for secret in filter(None, (CLIENT_SECRET, pending["code_verifier"], pending["nonce"], code)):
                assert secret not in text
        said.append(answer_page.status_code)
    assert said == [302, 400, 400]
    assert "Single sign-on was rejected" in caplog.text
    with app.app_context():
        tables = secret_canaries.tables()
    assert CLIENT_SECRET not in tables
