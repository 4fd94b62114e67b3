"""What the system administrator asks of everybody who signs in."""

from portal.accounts.models import SignInPolicy
from portal.extensions import db

ONLY = 1


def requires_two_factor() -> bool:
    """Return whether nobody may work without a second factor."""
    policy = db.session.get(SignInPolicy, ONLY)
    return policy is not None and policy.two_factor_required


def require_two_factor(required: bool) -> None:
    """Require a second factor of all accounts, or leave it to them."""
    db.session.merge(SignInPolicy(id=ONLY, two_factor_required=required))
    db.session.commit()
