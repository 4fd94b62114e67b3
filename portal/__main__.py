"""The command `pbx-portal`, which is also `python -m portal`."""

from collections.abc import Sequence

import click
from flask.cli import ScriptInfo

from portal import create_app
from portal.commands import COMMANDS


@click.group("pbx-portal", commands=COMMANDS)
@click.version_option(package_name="pbx-notification-portal")
@click.pass_context
def main(context: click.Context) -> None:
    """Install, run and administer the PBX notification portal. The settings are environment variables."""
    context.obj = ScriptInfo(create_app=create_app, set_debug_flag=False)


@main.command("run", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(context: click.Context, options: Sequence[str]) -> None:
    """Serve the portal until a signal stops it. `run --help` lists the options."""
    from portal import server  # Granian, which the other commands do not need

    context.exit(server.main(options))


if __name__ == "__main__":
    main(prog_name="pbx-portal")
