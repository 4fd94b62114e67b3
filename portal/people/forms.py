"""The forms of people: inviting, accepting, and the role in a tenant."""

from flask_babel import lazy_gettext
from wtforms import PasswordField, RadioField
from wtforms.fields import SelectChoice
from wtforms.validators import DataRequired

from portal.accounts.forms import NameForm, NewEmailForm
from portal.accounts.models import ADMINISTRATOR, VIEWER
from portal.accounts.passwords import PASSWORD_HELP
from portal.web.forms import PortalForm


def _role_field() -> RadioField:
    return RadioField(
        lazy_gettext("Role"),
        choices=[
            SelectChoice(ADMINISTRATOR, lazy_gettext("Administrator: changes all settings and invites people")),
            SelectChoice(VIEWER, lazy_gettext("Viewer: sees the overview and the delivery log, and changes nothing")),
        ],
        default=ADMINISTRATOR,
    )


class InvitationForm(NewEmailForm):
    """Whom to invite to the system."""


class TenantInvitationForm(InvitationForm):
    """Whom to invite to a tenant, and in which role."""

    role = _role_field()


class RoleForm(PortalForm):
    """The role of a person in a tenant."""

    role = _role_field()


class AcceptForm(NameForm):
    """The name and the password with which an invited person begins."""

    password = PasswordField(
        lazy_gettext("Password"),
        [DataRequired(lazy_gettext("Enter the password."))],
        description=PASSWORD_HELP,
        render_kw={"autocomplete": "new-password"},
    )
