"""The WSGI application, for the web server and the `flask` command."""

import gc

import click
from flask.cli import ScriptInfo

from portal import config, create_app

app = create_app()

command = click.get_current_context(silent=True)
if command is None or command.find_object(ScriptInfo) is None:  # the `flask` command still needs its environment
    config.remove_secrets_from_environment()

# Objects that exist now are kept until the end: the garbage collector need not check them again and again.
gc.collect()
gc.freeze()
