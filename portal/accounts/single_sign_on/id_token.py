"""ID tokens: whether one proves who signed in, and what it says about the person (OpenID Connect Core 1.0)."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from joserfc import jwk, jws, jwt
from joserfc.errors import JoseError

from portal.config import Settings
from portal.database import clock
from portal.setting_formats import MICROSOFT_HOSTS
from portal.web.forms import normalize_email

# Those of public keys. With others, a provider's public key or nothing at all would sign.
ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512"),
)
LEEWAY: Final = 60  # seconds between the provider's clock and the database's
MAX_AGE: Final = 600  # seconds since an ID token was issued: it comes straight from the provider
MAX_TOKEN_LENGTH: Final = 20_000
MAX_SUBJECT_LENGTH: Final = 255  # Core 1.0, section 2
GOOGLE_HOST: Final = "accounts.google.com"
ANY_METHOD: Final = "*"

Claims = Mapping[str, Any]


class SignInRejected(Exception):
    """The provider's answer does not prove who signed in. The text is for the log."""


class UnknownKey(SignInRejected):
    """The ID token is signed with a key that the provider did not have when its keys were fetched."""


def verify(token: object, keys: object, issuer: str, client_id: str, nonce: str) -> Claims:
    """Return the claims of an ID token that this issuer made for this client and this sign-in (section 3.1.3.7).

    Raise SignInRejected, or UnknownKey if the token names none of the keys.
    """
    if not isinstance(token, str) or len(token) > MAX_TOKEN_LENGTH:
        raise SignInRejected("There is no ID token.")
    registry = jwt.JWTClaimsRegistry(
        now=int(clock.now().timestamp()),
        leeway=LEEWAY,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True, "value": nonce},
        azp={"value": client_id},
    )
    try:
        key = jwk.import_key(_find_key(token, keys))
        claims = jwt.decode(token, key, algorithms=ALGORITHMS).claims
        registry.validate(claims)
    except JoseError as error:
        raise SignInRejected(f"The ID token is not valid: {error}"[:200]) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise SignInRejected(f"The ID token or its key is not valid: {type(error).__name__}") from None
    return _checked(claims, registry.now)


def verified_email(claims: Claims, settings: Settings) -> str | None:
    """Return the email address that the provider vouches for, or None."""
    try:
        email = normalize_email(str(claims.get("email", ""))).lower()
    except ValueError:
        return None
    domains = settings.sso_email_domains
    if domains and email.rpartition("@")[2] not in domains:
        return None
    return email if _is_verified(email, claims, settings) else None


def proves_two_factor(claims: Claims, settings: Settings) -> bool:
    """Return whether the person proved a second factor to the provider, as far as the operator trusts it."""
    trusted = settings.sso_two_factor
    methods = claims.get("amr")
    said = [claims.get("acr"), *(methods if isinstance(methods, list) else ())]
    return ANY_METHOD in trusted or any(value in trusted for value in said)


def _is_verified(email: str, claims: Claims, settings: Settings) -> bool:
    host = urlsplit(settings.sso_issuer or "").hostname
    if host == GOOGLE_HOST and "hd" not in claims and not email.endswith("@gmail.com"):
        return False  # Google verified it once, when it perhaps belonged to somebody else
    said = claims.get("email_verified")
    if host in MICROSOFT_HOSTS and said is None:
        # An "optional claim": the directory has verified the email address's domain. Without it, an email address is
        # whatever an administrator of the directory has typed (nOAuth).
        said = claims.get("xms_edov")
    if said is None:
        return settings.sso_trust_email
    return str(said).lower() in {"true", "1"}


def _find_key(token: str, keys: object) -> dict[str, Any]:
    header = jws.extract_compact(token.encode()).headers()
    usable = [
        key
        for key in (keys if isinstance(keys, list) else ())
        if isinstance(key, dict) and key.get("kty") in {"RSA", "EC"} and key.get("use", "sig") == "sig"
    ]
    key_id = header.get("kid")
    if key_id is None:
        matching = usable if len(usable) == 1 else []
    else:
        matching = [key for key in usable if key.get("kid") == key_id]
    if not matching:
        raise UnknownKey("The ID token is signed with an unknown key.")
    return matching[0]


def _checked(claims: Claims, now: int) -> Claims:
    audience = claims["aud"]
    if isinstance(audience, list) and len(audience) > 1 and "azp" not in claims:
        raise SignInRejected("The ID token is for several clients, and does not say which one asked for it.")
    if claims["iat"] < now - MAX_AGE - LEEWAY:
        raise SignInRejected("The ID token is old.")
    if not claims["sub"].isprintable() or len(claims["sub"]) > MAX_SUBJECT_LENGTH:
        raise SignInRejected("The ID token's subject is not valid.")
    return claims
