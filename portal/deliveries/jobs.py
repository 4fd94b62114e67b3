"""What workers do. The rows of the deliveries say what is due; jobs only share the work among machines.

So a job may be lost, doubled or late: a row stays due until somebody takes its lease.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from flask import Flask
from procrastinate import App, Blueprint, JobContext, PsycopgConnector, exceptions, jobs

from portal.deliveries import endings, storms
from portal.deliveries.retry import due, retry

logger = logging.getLogger(__name__)

EVERY_FEW_SECONDS = "* * * * * */5"  # the seconds stand last
EVERY_MINUTE = "* * * * *"
EVERY_HOUR = "7 * * * *"
MOST_AT_ONCE = 500
DEAD_AFTER = 60.0  # seconds without a heartbeat
CONNECTIONS = 4
LAST_JOBS_TAKE = 80  # seconds: a worker that is to end first finishes the mail that it is sending

tasks = Blueprint()


def run(portal: Flask, *, concurrency: int, wait: bool = True) -> None:
    """Do the jobs until a signal ends it, or, without `wait`, until none is left."""
    url = portal.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "", 1)
    queue = App(connector=PsycopgConnector(conninfo=url, min_size=1, max_size=CONNECTIONS))
    queue.add_tasks_from(tasks, namespace="portal")
    queue.run_worker(
        concurrency=concurrency,
        wait=wait,
        delete_jobs=jobs.DeleteJobCondition.ALWAYS,
        shutdown_graceful_timeout=LAST_JOBS_TAKE,
        additional_context={"portal": portal},
    )


@tasks.task(name="attempt", pass_context=True)
def attempt(job: JobContext, tenant_id: int, delivery_id: str) -> None:
    """Try one mail again."""
    with _portal(job):
        retry(tenant_id, UUID(delivery_id))


@tasks.periodic(cron=EVERY_FEW_SECONDS)
@tasks.task(name="take_up", queueing_lock="take_up", pass_context=True)
def take_up(job: JobContext, timestamp: int) -> None:  # noqa: ARG001 (Procrastinate's signature)
    """Make a job of each mail that is due, so that all workers share them."""
    with _portal(job):
        waiting = due(MOST_AT_ONCE)
    for tenant_id, delivery_id in waiting:
        once = attempt.configure(queueing_lock=f"attempt:{delivery_id}")
        try:
            once.defer(tenant_id=tenant_id, delivery_id=str(delivery_id))
        except exceptions.AlreadyEnqueued:
            continue


@tasks.periodic(cron=EVERY_FEW_SECONDS)
@tasks.task(name="write_digests", queueing_lock="write_digests", pass_context=True)
def write_digests(job: JobContext, timestamp: int) -> None:  # noqa: ARG001
    """Tell of the storms that are over."""
    with _portal(job):
        storms.write_digests()


@tasks.periodic(cron=EVERY_MINUTE)
@tasks.task(name="expire", queueing_lock="expire", pass_context=True)
def expire(job: JobContext, timestamp: int) -> None:  # noqa: ARG001
    """Give up the mails whose time is over."""
    with _portal(job):
        while endings.expire():
            pass


@tasks.periodic(cron=EVERY_HOUR)
@tasks.task(name="purge", queueing_lock="purge", pass_context=True)
def purge(job: JobContext, timestamp: int) -> None:  # noqa: ARG001
    """Delete what is older than the retention allows."""
    with _portal(job):
        deleted = endings.purge()
    logger.info("Deleted %d events that are older than the retention allows.", deleted)


@tasks.periodic(cron=EVERY_MINUTE)
@tasks.task(name="forget_stalled", queueing_lock="forget_stalled", pass_context=True)
async def forget_stalled(job: JobContext, timestamp: int) -> None:  # noqa: ARG001
    """Delete the jobs of workers that died. Their mails' leases run out, and others take them up."""
    manager = job.app.job_manager
    for stalled in await manager.get_stalled_jobs(seconds_since_heartbeat=DEAD_AFTER):
        await manager.finish_job(stalled, jobs.Status.FAILED, delete_job=True)


@contextmanager
def _portal(job: JobContext) -> Iterator[None]:
    portal: Flask = job.additional_context["portal"]
    with portal.app_context():
        yield
