"""The command that runs a worker."""

import gc

import click
from flask import current_app
from flask.cli import with_appcontext

from portal import config
from portal.commands.output import echo, fail
from portal.database import pooler
from portal.deliveries import worker as deliveries_worker
from portal.monitoring import health_checks


@click.command("worker")
@click.option("--check", is_flag=True, help="Only say whether workers are running: exit status 0 or 1.")
@with_appcontext
def worker(check: bool) -> None:
    """Send due emails, expire overdue ones and delete old events until a signal stops it."""
    if check:
        if problem := health_checks.find_worker_problem():
            fail(problem)
        echo("A worker is running.")
        return
    if pooler.is_refused(current_app.config["SQLALCHEMY_DATABASE_URI"]):
        fail(pooler.REFUSAL)
    gc.collect()  # what exists now is kept until the end and need not be checked again
    gc.freeze()
    config.remove_secrets_from_environment()
    deliveries_worker.run(current_app._get_current_object(), concurrency=config.current().worker_concurrency)  # type: ignore[attr-defined]
