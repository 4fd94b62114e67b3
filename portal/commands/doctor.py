"""The command that checks everything the portal needs."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence

import click
from flask.cli import ScriptInfo

from portal.commands.output import echo, echo_text
from portal.config import UnsafeSettings
from portal.doctor import checkup
from portal.doctor.diagnoses import THREAD_NAME, Diagnosis, State, examine

COULD_NOT_RUN = 2


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--web-processes", type=click.IntRange(1), default=2, show_default=True, help="Of all machines.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Of all machines.")
@click.pass_context
def doctor(context: click.Context, as_json: bool, web_processes: int, workers: int) -> None:
    """Check the settings, the database and what is reached over the network, and say what to do.

    Nothing is changed and no email is sent. It takes up to 20 seconds. Exit status: 0 if no check failed, 1 if one
    failed, 2 if the doctor could not run.
    """
    diagnoses = _examine(context, web_processes, workers)
    echo_text(f"{checkup.as_json(diagnoses) if as_json else checkup.as_text(diagnoses)}\n")
    status = 1 if checkup.has_failed(diagnoses) else 0
    if any(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(status)  # Python would wait for look-ups that a check has left running
    context.exit(status)


def _examine(context: click.Context, web_processes: int, workers: int) -> Sequence[Diagnosis]:
    try:
        app = context.ensure_object(ScriptInfo).load_app()
    except UnsafeSettings as error:
        problems = " ".join(line.strip() for line in str(error).splitlines()[1:])
        return [Diagnosis("settings", State.FAILED, problems, "Correct the settings: the other checks need them.")]
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # the embedded Postgres does not start
        echo(f"The doctor could not run: {type(error).__name__}.", err=True)
        context.exit(COULD_NOT_RUN)
    return examine(app, checkup.topics(web_processes, workers))
