"""The commands about mail servers."""

import os

import click

from portal.commands.group import CommandGroup, owner_of, unwrap, validated
from portal.commands.output import echo
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.forms import MailServerForm
from portal.mail_servers.smtp.client import AuthMode

mail_server = CommandGroup("mail-server", help="The mail servers of the system and of tenants.")


@mail_server.command("set")
@click.option("--tenant", metavar="DOMAIN", help="The tenant's own mail server.")
@click.option("--system", is_flag=True, help="The system's mail server.")
@click.option("--host", required=True)
@click.option("--port", required=True)
@click.option("--encryption", type=click.Choice(["none", "starttls", "tls"]), required=True)
@click.option("--auth", type=click.Choice([mode.value for mode in AuthMode]), required=True)
@click.option("--username")
@click.option("--sender", required=True, metavar="EMAIL")
def set_mail_server(tenant: str | None, system: bool, auth: str, sender: str, **values: str | None) -> None:
    """Set a mail server. Its password is PORTAL_MAIL_PASSWORD; if unset, the saved one."""
    owner = owner_of(tenant, system)
    password = os.environ.get("PORTAL_MAIL_PASSWORD")
    form = validated(
        MailServerForm.from_values(
            {**values, "provider": "smtp", "auth_mode": auth, "sender_email": sender, "password": password}
        )
    )
    server = unwrap(mail_server_service.save(owner.id if owner else None, form.entered_settings()))
    echo(f"Email of {tenant or 'the system'} is sent through {server.host}, port {server.port}.")


@mail_server.command("share")
@click.argument("state", type=click.Choice(["on", "off"]))
def share_mail_server(state: str) -> None:
    """Apply the system's mail server settings to all tenants, or stop doing so."""
    unwrap(mail_server_service.share(state == "on"))
    echo(f"Sharing is {state}.")
