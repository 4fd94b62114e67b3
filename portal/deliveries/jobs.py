"""What workers do. The rows of the deliveries say what is due; jobs only share the work among machines.

So a job may be lost, doubled or late: a row stays due until somebody takes its lease.
"""

import asyncio
import logging
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from uuid import UUID

import psycopg
from flask import Flask
from procrastinate import App, JobContext, PsycopgConnector, exceptions, jobs
from procrastinate.tasks import Task
from procrastinate.types import JSONValue

from portal.database import ROLE
from portal.deliveries import endings, storms, tally
from portal.deliveries.retry import due, retry

logger = logging.getLogger(__name__)

EVERY_FEW_SECONDS = "* * * * * */5"  # the seconds stand last
EVERY_MINUTE = "* * * * *"
EVERY_FEW_MINUTES = "*/5 * * * *"
EVERY_HOUR = "7 * * * *"
MOST_AT_ONCE = 500
DEAD_AFTER = 60.0  # seconds without a heartbeat
CONNECTIONS = 4
FIRST = 1  # before the mails, which have 0: what looks after all tenants must not wait for one of them
AGAIN_AFTER = 1.0  # seconds, when the database went away
OPENS_WITHIN = 10.0  # seconds
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAST_JOBS_TAKE = 80  # seconds: a worker that is to end first finishes the mail that it is sending

queue = App(connector=PsycopgConnector())  # `connector` takes the place of this one, which leads nowhere


def run(portal: Flask, *, concurrency: int, wait: bool = True) -> None:
    """Do the jobs until a signal ends it, or, without `wait`, until none is left.

    A database that goes away ends nothing: the work goes on when it is back.
    """
    asyncio.run(_run(portal, concurrency, wait))


async def _run(portal: Flask, concurrency: int, wait: bool) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_default_executor(ThreadPoolExecutor(concurrency, "job"))  # in which procrastinate runs what is not async
    for each in STOP_SIGNALS:
        loop.add_signal_handler(each, stop.set)
    while not stop.is_set():
        work = asyncio.create_task(_work(portal, concurrency, wait))
        await asyncio.wait([work, stopped := asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        work.cancel()  # which lets it finish its jobs
        try:
            await work
        except asyncio.CancelledError:
            return
        except (exceptions.ConnectorException, psycopg.Error) as error:
            logger.warning("The database does not answer: %s", error)
        if not wait:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), AGAIN_AFTER)


def connector(portal: Flask) -> PsycopgConnector:
    """Return a way to the portal's jobs, not opened yet."""
    url = portal.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "", 1)
    role = {"options": f"-c role={ROLE}"}
    return PsycopgConnector(conninfo=url, kwargs=role, min_size=1, max_size=CONNECTIONS, timeout=OPENS_WITHIN)


async def _work(portal: Flask, concurrency: int, wait: bool) -> None:
    """Do the jobs until none is left or the database goes away."""
    with queue.replace_connector(connector(portal)):
        async with queue.open_async():
            await queue.run_worker_async(
                concurrency=concurrency,
                wait=wait,
                install_signal_handlers=False,
                delete_jobs=jobs.DeleteJobCondition.ALWAYS,
                shutdown_graceful_timeout=LAST_JOBS_TAKE,
                additional_context={"portal": portal},
            )


@queue.task(name="portal:attempt", pass_context=True)
def attempt(job: JobContext, tenant_id: int, delivery_id: str) -> None:
    """Try one mail again."""
    with _portal(job):
        retry(tenant_id, UUID(delivery_id))


@queue.task(name="portal:write_digest", pass_context=True)
def write_digest(job: JobContext, tenant_id: int, event_type: str, queue: str) -> None:
    """Tell of a storm that is over."""
    with _portal(job):
        storms.write_digest(tenant_id, event_type, queue)


@queue.periodic(cron=EVERY_FEW_SECONDS)
@queue.task(name="portal:take_up", queueing_lock="take_up", priority=FIRST, pass_context=True)
def take_up(job: JobContext, timestamp: int) -> None:  # noqa: ARG001 (Procrastinate's signature)
    """Make a job of each mail that is due and of each storm that is over, so that all workers share them."""
    with _portal(job):
        mails, ended = due(MOST_AT_ONCE), storms.over()
    for tenant_id, delivery_id in mails:
        _once(attempt, f"attempt:{delivery_id}", tenant_id=tenant_id, delivery_id=str(delivery_id))
    for tenant_id, event_type, queue in ended:
        lock = f"digest:{tenant_id}:{event_type}:{queue}"
        _once(write_digest, lock, tenant_id=tenant_id, event_type=event_type, queue=queue)


@queue.periodic(cron=EVERY_MINUTE)
@queue.task(name="portal:expire", queueing_lock="expire", priority=FIRST, pass_context=True)
def expire(job: JobContext, timestamp: int) -> None:  # noqa: ARG001
    """Give up the mails whose time is over."""
    with _portal(job):
        while endings.expire():
            pass


@queue.periodic(cron=EVERY_FEW_MINUTES)
@queue.task(name="portal:count", queueing_lock="count", priority=FIRST, pass_context=True)
def count(job: JobContext, timestamp: int) -> None:  # noqa: ARG001
    """Count the mails of the last days."""
    with _portal(job):
        tally.count()


@queue.periodic(cron=EVERY_HOUR)
@queue.task(name="portal:purge", queueing_lock="purge", priority=FIRST, pass_context=True)
def purge(job: JobContext, timestamp: int) -> None:  # noqa: ARG001
    """Delete what is older than the retention allows."""
    with _portal(job):
        deleted = endings.purge()
    logger.info("Deleted %d events that are older than the retention allows.", deleted)


@queue.periodic(cron=EVERY_MINUTE)
@queue.task(name="portal:forget_stalled", queueing_lock="forget_stalled", priority=FIRST, pass_context=True)
async def forget_stalled(job: JobContext, timestamp: int) -> None:  # noqa: ARG001
    """Delete the jobs of workers that died. Their mails' leases run out, and others take them up."""
    manager = job.app.job_manager
    for stalled in await manager.get_stalled_jobs(seconds_since_heartbeat=DEAD_AFTER):
        await manager.finish_job(stalled, jobs.Status.FAILED, delete_job=True)


def _once(task: Task[..., None, ...], lock: str, **arguments: JSONValue) -> None:
    """Queue a job unless it waits already."""
    with suppress(exceptions.AlreadyEnqueued):
        task.configure(queueing_lock=lock).defer(**arguments)


@contextmanager
def _portal(job: JobContext) -> Iterator[None]:
    portal: Flask = job.additional_context["portal"]
    with portal.app_context():
        yield
