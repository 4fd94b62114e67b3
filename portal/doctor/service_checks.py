"""Checks of what runs on the database: stored secrets, the worker, the alerts that administrators are emailed about."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from sqlalchemy import func, select

from portal import crypto, key_rotation
from portal.accounts.models import Account
from portal.alerts import conditions, texts
from portal.alerts.conditions import AlertKind
from portal.doctor.diagnoses import Diagnosis, State, Topic, count_of
from portal.extensions import db

MAX_SECRETS_READ: Final = 500  # of each column
OLD_HASH: Final = "secret-key:%"  # of a password, made by versions before 0.1.0


def _stored_secrets() -> Iterator[Diagnosis]:
    name, ring = "stored secrets", crypto.keyring()
    stored, unreadable = key_rotation.read_stored(MAX_SECRETS_READ)
    missing = [key_id for key_id in stored if key_id not in ring.keys]
    old_hashes = db.session.scalar(select(func.count()).where(Account.password.like(OLD_HASH)))
    if missing:
        seen = f"ENCRYPTION_KEYS lacks the key {missing[0]}, which encrypts {count_of(stored[missing[0]], 'secret')}."
        yield Diagnosis(
            name, State.FAILED, seen, "Add that key to ENCRYPTION_KEYS. Without it they have to be entered again."
        )
    elif unreadable:
        seen = f"The portal cannot decrypt {count_of(unreadable.total(), 'secret')} ({', '.join(unreadable)})."
        advice = "Put the key with which they were encrypted into ENCRYPTION_KEYS, or enter them again."
        yield Diagnosis(name, State.FAILED, seen, advice)
    elif old := [key_id for key_id in stored if key_id != ring.current_key_id]:
        seen = f"The earlier key {old[0]} still encrypts {count_of(stored[old[0]], 'secret')}."
        yield Diagnosis(
            name, State.WARNING, seen, "Run `pbx-portal secrets rotate`, and keep that key until a day after."
        )
    elif old_hashes:
        seen = f"The SECRET_KEY of before version 0.1.0 is still needed for {count_of(old_hashes, 'password')}."
        yield Diagnosis(
            name, State.WARNING, seen, "Keep that key in SECRET_KEY_FALLBACKS until these people have signed in."
        )
    else:
        unused = [key_id for key_id in ring.keys if key_id != ring.current_key_id]
        hint = f" Nothing needs the key {unused[0]} any more: remove it a day after the rotation." if unused else ""
        yield Diagnosis(name, State.OK, f"All {stored.total()} that were read can be decrypted.{hint}")


def _worker() -> Iterator[Diagnosis]:
    name = "worker"
    stopped = next(conditions.no_worker(), None)
    if stopped:
        last = (
            f"The last one was there at {stopped.since:%Y-%m-%d %H:%M} UTC."
            if stopped.since
            else "There never was one."
        )
        yield Diagnosis(name, State.FAILED, f"No worker is running. {last}", "Start `pbx-portal worker` as a service.")
    elif overdue := conditions.overdue():
        seen = f"The workers do not keep up: {count_of(overdue, 'email')} overdue by more than 5 minutes."
        yield Diagnosis(name, State.WARNING, seen, "Start another worker, or raise WORKER_CONCURRENCY.")
    else:
        yield Diagnosis(name, State.OK, "A worker is running, and nothing is overdue.")


def _alerts() -> Iterator[Diagnosis]:
    """Count what is wrong with tenants and with the system. Other checks are about the worker and the disk."""
    name, own_checks = "alerts", {AlertKind.NO_WORKER, AlertKind.DISK}
    found = [one for one in conditions.find(conditions.EVERYONE).conditions if one.kind not in own_checks]
    of_system = [one for one in found if one.tenant_id is None]
    if of_system:
        first = of_system[0]
        text = texts.describe(first.kind, first.subject, first.details, is_system=True)
        yield Diagnosis(name, State.WARNING, text.sentence, "Open the system's overview, which says what to do.")
    elif found:
        kinds = Counter(one.kind for one in found)
        listed = ", ".join(f"{kind.replace('_', ' ')} ({count})" for kind, count in kinds.items())
        seen = f"Tenants have alerts: {listed}."
        yield Diagnosis(
            name, State.WARNING, seen, "Their administrators are emailed. The overview of the system lists them."
        )
    else:
        yield Diagnosis(name, State.OK, "There is no alert about a tenant or the system.")


TOPICS: Final = (
    Topic(("stored secrets",), _stored_secrets),
    Topic(("worker",), _worker),
    Topic(("alerts",), _alerts),
)
