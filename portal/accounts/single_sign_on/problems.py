"""What keeps people from signing in at the provider."""

from collections.abc import Sequence

from portal import config
from portal.accounts import service as account_service
from portal.accounts.single_sign_on import provider
from portal.accounts.single_sign_on.provider import ProviderUnreachable


def find_problems() -> Sequence[str]:
    """Return what keeps people from signing in, as sentences. Takes as long as the provider."""
    found = []
    try:
        provider.check()
    except ProviderUnreachable as error:
        found.append(f"The provider does not work. {error}")
    if config.current().sso_only and not account_service.break_glass_accounts():
        found.append(
            "SSO_ONLY is on and there is no break-glass account"
            + (": nobody can sign in. " if found else ": when the provider fails, nobody can sign in. ")
            + "Mark an account that has a password: pbx-portal single-sign-on break-glass EMAIL on"
        )
    return found
