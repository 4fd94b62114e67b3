"""Whose word an email address is taken on: the rules of Microsoft and Google."""

from typing import Any

import pytest

from portal.accounts.single_sign_on.id_token import verified_email
from portal.config import Settings

DIRECTORY = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0"
GOOGLE = "https://accounts.google.com"
ELSEWHERE = "https://id.acme.example/realms/acme"


def email_of(settings: Settings, issuer: str, claims: dict[str, Any], **more: Any) -> str | None:
    changed = settings.model_copy(update={"sso_issuer": issuer, **more})
    return verified_email({"email": "Ann@acme.example", **claims}, changed)


@pytest.mark.parametrize("yes", [True, "true", "1", 1])
def test_microsofts_claim_about_the_domain_counts_in_a_directory_only(settings: Settings, yes: object) -> None:
    assert email_of(settings, DIRECTORY, {"xms_edov": yes}) == "ann@acme.example"
    assert email_of(settings, ELSEWHERE, {"xms_edov": yes}) is None


@pytest.mark.parametrize("no", [False, "false", "0", 0, "yes", [True], {}])
def test_an_email_address_that_the_provider_denies_is_not_trusted_by_setting(settings: Settings, no: object) -> None:
    assert email_of(settings, DIRECTORY, {"xms_edov": no}, sso_trust_email=True) is None
    assert email_of(settings, ELSEWHERE, {"email_verified": no}, sso_trust_email=True) is None
    assert email_of(settings, DIRECTORY, {}, sso_trust_email=True) == "ann@acme.example"
    assert email_of(settings, DIRECTORY, {}) is None


@pytest.mark.parametrize("name", ["preferred_username", "upn", "unique_name", "verified_primary_email"])
def test_other_names_of_a_person_are_not_email_addresses(settings: Settings, name: str) -> None:
    claims = {"email": None, name: "ann@acme.example", "xms_edov": True, "email_verified": True}
    assert email_of(settings, DIRECTORY, claims, sso_trust_email=True) is None


def test_google_vouches_for_gmail_and_workspace_only(settings: Settings) -> None:
    """It verified another address once, and does not know who has it now."""
    verified = {"email_verified": True}
    assert email_of(settings, GOOGLE, verified) is None
    assert email_of(settings, GOOGLE, verified, sso_trust_email=True) is None
    assert email_of(settings, GOOGLE, {**verified, "hd": "acme.example"}) == "ann@acme.example"
    assert email_of(settings, GOOGLE, {**verified, "email": "ann@gmail.com"}) == "ann@gmail.com"
    assert email_of(settings, GOOGLE, {"email": "ann@gmail.com", "email_verified": False}) is None
    assert email_of(settings, GOOGLE, {**verified, "email": "ann@gmail.com.evil.example"}) is None
