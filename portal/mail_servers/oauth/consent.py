"""Signing in at a provider: an authorization code with PKCE (RFC 7636), bound to the session that began it.

What was begun is kept in the session. It ends for the owner that it was begun for, in the same session and for the same
account: nobody can have somebody else's mailbox connected, or their own mailbox to somebody else's mail server.
"""

import hmac
from typing import Any, Final, TypedDict

from authlib.common.security import generate_token

from portal.mail_servers.oauth import token_requests
from portal.mail_servers.oauth.identity_providers import AppCredentials, GrantType, IdentityProvider, authorization_url
from portal.mail_servers.oauth.token_requests import GrantedTokens, TokenRequest

LIFETIME: Final = 600.0  # seconds; long enough for a new password and a second factor
STATE_LENGTH: Final = 43
CODE_VERIFIER_LENGTH: Final = 64  # RFC 7636, section 4.1: 43 to 128


class PendingSignIn(TypedDict):
    """A sign-in that was begun, as it is kept in the session. `owner` is a tenant's id, or None for the system."""

    owner: int | None
    domain: str | None
    account_id: int
    provider: str
    state: str
    code_verifier: str
    began_at: float


def begin(
    provider: IdentityProvider, app: AppCredentials, directory: str | None, login_hint: str | None
) -> tuple[str, str, str]:
    """Return the URL at which the person signs in, its state and the code verifier."""
    state, verifier = generate_token(STATE_LENGTH), generate_token(CODE_VERIFIER_LENGTH)
    parameters: dict[str, Any] = {**provider.authorization_parameters, "login_hint": login_hint}
    with token_requests.app_session(_request(provider, app, directory)) as session:
        url, _ = session.create_authorization_url(
            authorization_url(provider, directory), state=state, code_verifier=verifier, **parameters
        )
    return url, state, verifier


def is_answer_to(pending: PendingSignIn | None, state: str, *, now: float) -> bool:
    """Return whether a redirect with this state ends the sign-in that was begun, in time."""
    if pending is None or not hmac.compare_digest(pending["state"].encode(), state.encode()):
        return False
    return 0 <= now - pending["began_at"] <= LIFETIME


def redeem(
    provider: IdentityProvider, app: AppCredentials, directory: str | None, code: str, code_verifier: str
) -> GrantedTokens:
    """Return the tokens that the provider grants for the code. Raise SmtpFailure at the stage TOKEN."""
    return token_requests.redeem_code(_request(provider, app, directory), code, code_verifier)


def _request(provider: IdentityProvider, app: AppCredentials, directory: str | None) -> TokenRequest:
    return TokenRequest(
        provider, GrantType.AUTHORIZATION_CODE, app.client_id, client_secret=app.client_secret, directory=directory
    )
