"""Background work: due emails, digests, expiry, statistics and retention, shared among worker processes.

The rows of the deliveries say which emails are due. The jobs only wake the workers, so a job may be lost, repeated or
late: an email stays due until a worker takes its lease.
"""

import asyncio
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Concatenate, Final, ParamSpec

import psycopg
from flask import Flask
from procrastinate import App, JobContext, PsycopgConnector, exceptions, jobs
from procrastinate.tasks import Task
from procrastinate.types import JSONValue

from portal.database.engine import KEEPALIVE, ROLE
from portal.deliveries import digest, lifecycle, quiet_hours, release, retention, statistics
from portal.deliveries.retry import retry_next, tenants_with_due
from portal.extensions import db
from portal.mail_servers.oauth.idle_connections import refresh_idle
from portal.mail_servers.smtp import pool
from portal.monitoring import logs
from portal.monitoring.processes import Reporter
from portal.signals import alerts_due, transfer_due

logger = logging.getLogger(__name__)
P = ParamSpec("P")

EVERY_5_SECONDS: Final = "* * * * * */5"  # the sixth field is the second
EVERY_MINUTE: Final = "* * * * *"
EVERY_5_MINUTES: Final = "*/5 * * * *"
EVERY_HOUR: Final = "7 * * * *"
SENDING_TIME: Final = 5.0  # seconds of one job: then a job of high priority gets the thread if there is one
JOB_CONNECTIONS: Final = 2  # of the job queue, for all threads: one for its statements, one that listens for new jobs
HEARTBEAT_TIMEOUT: Final = 60.0  # seconds
CONNECT_TIMEOUT: Final = 10.0  # seconds
RECONNECT_DELAY: Final = 1.0  # seconds
SHUTDOWN_TIMEOUT: Final = 80  # seconds: longer than an attempt takes, unless the mail server is very slow
HIGH_PRIORITY: Final = 1  # emails have 0: a job for all tenants does not wait for one of them
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

job_queue = App(connector=PsycopgConnector())  # `job_connector` replaces this connector, which connects to nothing


def run(app: Flask, *, concurrency: int, wait: bool = True) -> None:
    """Run jobs until a signal arrives or, without `wait`, until there are no more.

    If the database is lost, the worker continues when it is back.
    """
    asyncio.run(_run(app, concurrency, wait))


async def _run(app: Flask, concurrency: int, wait: bool) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_default_executor(ThreadPoolExecutor(concurrency, "job"))  # procrastinate runs synchronous tasks in it
    for stop_signal in STOP_SIGNALS:
        loop.add_signal_handler(stop_signal, stop.set)
    reporter = Reporter(app, "worker", pool.slots_in_use)
    report_task = asyncio.create_task(reporter.report_while_loop_runs())
    try:
        await _run_until(stop, app, concurrency, wait)
    finally:
        report_task.cancel()
        reporter.end()


async def _run_until(stop: asyncio.Event, app: Flask, concurrency: int, wait: bool) -> None:
    while not stop.is_set():
        jobs_task, stop_task = asyncio.create_task(_run_jobs(app, concurrency, wait)), asyncio.create_task(stop.wait())
        await asyncio.wait([jobs_task, stop_task], return_when=asyncio.FIRST_COMPLETED)
        stop_task.cancel()
        jobs_task.cancel()  # the jobs in progress are finished first
        try:
            await jobs_task
        except asyncio.CancelledError:
            return
        except (exceptions.ConnectorException, psycopg.Error) as error:
            logger.warning("The database does not answer: %s", error)
        if not wait:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), RECONNECT_DELAY)


def job_connector(app: Flask) -> PsycopgConnector:
    """Return a connector to the portal's jobs. It is not open yet."""
    url = app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "", 1)
    # A transaction of a worker that is gone must not keep the others from theirs, which are short.
    options = {"options": f"-c role={ROLE} -c idle_in_transaction_session_timeout=10s {KEEPALIVE}"}
    return PsycopgConnector(conninfo=url, kwargs=options, min_size=1, max_size=1, timeout=CONNECT_TIMEOUT)


async def _run_jobs(app: Flask, concurrency: int, wait: bool) -> None:
    """Run jobs until there are no more or the database is lost."""
    with job_queue.replace_connector(job_connector(app)):
        async with job_queue.open_async():
            await job_queue.run_worker_async(
                concurrency=concurrency,
                wait=wait,
                install_signal_handlers=False,
                delete_jobs=jobs.DeleteJobCondition.ALWAYS,
                shutdown_graceful_timeout=SHUTDOWN_TIMEOUT,
                additional_context={"app": app},
            )


def _in_app(work: Callable[P, object]) -> Callable[Concatenate[JobContext, P], None]:
    """Return a function for a job, which does this work in the app's context."""

    def run_job(job: JobContext, /, *args: P.args, **kwargs: P.kwargs) -> None:
        app: Flask = job.additional_context["app"]
        logs.begin()
        with app.app_context():
            work(*args, **kwargs)

    return run_job


@job_queue.task(name="portal:send_due", pass_context=True)
@_in_app
def send_due(after: int) -> None:
    """Send due emails of each tenant in turn, until nothing is due or the job's time is over.

    While there is more to send, one such job is queued for the next thread that has nothing to do, of any worker.
    """
    ends, tenant_id, has_woken_another = time.monotonic() + SENDING_TIME, after, False

    def wake_another() -> None:
        nonlocal has_woken_another
        if not has_woken_another:
            _queue_once(send_due, "send_due", after=tenant_id)
            has_woken_another = True

    tenants = deque(tenants_with_due(after))
    db.session.rollback()  # gives its connection back before emails are sent, which takes long
    try:
        while tenants and time.monotonic() < ends:
            tenant_id = tenants[0]
            has_more = retry_next(tenant_id, on_lease=wake_another)
            tenants.popleft()
            if has_more:
                tenants.append(tenant_id)
    finally:  # also after an error, which is one email's
        if tenants:
            _queue_once(send_due, "send_due", after=tenant_id)


write_digest = job_queue.task(name="portal:write_digest", pass_context=True)(_in_app(digest.write_digest))
write_summaries = job_queue.task(name="portal:write_summaries", pass_context=True)(_in_app(quiet_hours.write_summaries))


def queue_due_work() -> None:
    """Queue jobs for storms whose time is over, for quiet hours that have ended, and for due emails."""
    for tenant_id, event_type, queue_number in digest.ended_storms():
        lock = f"digest:{tenant_id}:{event_type}:{queue_number}"
        _queue_once(write_digest, lock, tenant_id=tenant_id, event_type=event_type, queue_number=queue_number)
    for tenant_id in quiet_hours.tenants_with_ended_quiet_hours():
        _queue_once(write_summaries, f"summaries:{tenant_id}", tenant_id=tenant_id)
    if tenants_with_due():
        queue_send_due()


def expire_all() -> None:
    """Expire the emails whose time is over, a batch at a time."""
    while lifecycle.expire_deliveries():
        pass


def queue_send_due() -> None:
    """Queue a job for due emails."""
    _queue_once(send_due, "send_due", after=0)


@job_queue.periodic(cron=EVERY_MINUTE)
@job_queue.task(name="portal:stalled_jobs", queueing_lock="stalled_jobs", priority=HIGH_PRIORITY, pass_context=True)
async def delete_stalled_jobs(job: JobContext, timestamp: int) -> None:  # noqa: ARG001 (Procrastinate's signature)
    """Delete the jobs of dead workers. The leases of their emails expire, and other workers take them."""
    manager = job.app.job_manager
    for stalled in await manager.get_stalled_jobs(seconds_since_heartbeat=HEARTBEAT_TIMEOUT):
        await manager.finish_job(stalled, jobs.Status.FAILED, delete_job=True)


def _queue_once(task: Task[..., None, ...], lock: str, **arguments: JSONValue) -> None:
    """Queue a job unless it is queued already."""
    with suppress(exceptions.AlreadyEnqueued):
        task.configure(queueing_lock=lock).defer(**arguments)


PERIODIC_WORK: Final[Mapping[str, tuple[str, Callable[[], object]]]] = {
    "queue_due_work": (EVERY_5_SECONDS, queue_due_work),
    "release_held": (EVERY_5_SECONDS, lambda: release.release_requested(on_batch=queue_send_due)),
    "transfer": (EVERY_5_SECONDS, transfer_due.send),
    "shared_limits": (EVERY_MINUTE, lambda: release.release_within_limits(on_batch=queue_send_due)),
    "expire": (EVERY_MINUTE, expire_all),
    "alerts": (EVERY_MINUTE, alerts_due.send),
    "statistics": (EVERY_5_MINUTES, statistics.update),
    "retention": (EVERY_HOUR, retention.delete_old_data),
    "idle_connections": (EVERY_HOUR, refresh_idle),
}


def _add_periodic_task(name: str, cron: str, work: Callable[[], object]) -> None:
    """Let one worker do this in each period, unless the last time has not ended yet."""

    @job_queue.periodic(cron=cron)
    @job_queue.task(name=f"portal:{name}", queueing_lock=name, priority=HIGH_PRIORITY, pass_context=True)
    @_in_app
    def run_periodic(timestamp: int) -> None:  # noqa: ARG001 (Procrastinate's signature)
        work()


for task_name, (cron_expression, function) in PERIODIC_WORK.items():
    _add_periodic_task(task_name, cron_expression, function)
