"""What a check found, and how checks are run: within a time limit, whatever happens to the others."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Thread
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from flask import Flask

from portal.config import Settings
from portal.database.engine import DATABASE_ERRORS
from portal.setting_formats import split

TIME_LIMIT: Final = 20.0  # seconds for all checks
MIN_MASKED_LENGTH: Final = 8  # a shorter password is part of other words
MASK: Final = "…"
THREAD_NAME: Final = "doctor: "


class State(StrEnum):
    """The result of a check in one word."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of the check with this name: a sentence on what was seen, and one on what to do if anything is."""

    name: str
    state: State
    seen: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Topic:
    """Checks that share something. `run` returns a diagnosis for each of them in this order, and may end early."""

    checks: Sequence[str]
    run: Callable[[], Iterable[Diagnosis]]


def count_of(number: int, noun: str) -> str:
    """Return "1 secret" or "1,204 secrets"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def examine(app: Flask, topics: Sequence[Topic], time_limit: float = TIME_LIMIT) -> Sequence[Diagnosis]:
    """Run all topics at the same time, and return one diagnosis for each check. No secret is in it.

    It takes no longer than the time limit, in seconds: a check that does not end is left running.
    """
    examinations = [_Examination(app, topic) for topic in topics]
    ends = time.monotonic() + time_limit
    for examination in examinations:
        examination.join(max(0.0, ends - time.monotonic()))
    secrets = known_secrets(app.extensions["settings"])
    return [_masked(diagnosis, secrets) for examination in examinations for diagnosis in examination.diagnoses()]


class _Examination(Thread):
    """Runs a topic. A daemon, so that the program ends although a check does not."""

    def __init__(self, app: Flask, topic: Topic) -> None:
        super().__init__(name=f"{THREAD_NAME}{topic.checks[0]}", daemon=True)
        self._app, self._topic = app, topic
        self._found: list[Diagnosis] = []
        self._problem = ""
        self.start()

    def run(self) -> None:
        try:
            with self._app.app_context():
                for diagnosis in self._topic.run():
                    self._found.append(diagnosis)
        except DATABASE_ERRORS:
            self._problem = "The database does not respond."
        except Exception as error:  # noqa: BLE001 (whatever it is, the other checks go on)
            self._found.append(self._crash(error))

    def _crash(self, error: Exception) -> Diagnosis:
        seen = f"The check ended with {type(error).__name__}."
        return Diagnosis(self._next_check, State.FAILED, seen, "Report it, with the version and this output.")

    @property
    def _next_check(self) -> str:
        return self._topic.checks[len(self._found)]

    def diagnoses(self) -> Sequence[Diagnosis]:
        """Return a diagnosis for each check of the topic, also for those that were not reached."""
        found = list(self._found)
        missing = self._topic.checks[len(found) :]
        if missing and self.is_alive():
            seen = "There was no result in time."
            found.append(Diagnosis(missing[0], State.FAILED, seen, "Run the command again. If it repeats, look there."))
            missing = missing[1:]
        reason = self._problem or (f"“{found[-1].name}” comes first." if found else "It was not reached.")
        return [*found, *(Diagnosis(name, State.SKIPPED, reason) for name in missing)]


def known_secrets(settings: Settings) -> Sequence[str]:
    """Return the secrets of the settings that could turn up in an error text, the longest first."""
    keys = settings.encryption_keys.get_secret_value() if settings.encryption_keys else ""
    found = {*settings.secret_keys, *(part.partition(":")[2] for part in split(keys))}
    for secret in (settings.microsoft_client_secret, settings.google_client_secret, settings.sso_client_secret):
        found.add(secret.get_secret_value() if secret else "")
    for url in filter(None, (settings.database_url, settings.migration_database_url)):
        password = urlsplit(url).password or ""
        found |= {password, unquote(password), quote(unquote(password), safe="")}
    return sorted((secret for secret in found if len(secret) >= MIN_MASKED_LENGTH), key=len, reverse=True)


def _masked(diagnosis: Diagnosis, secrets: Sequence[str]) -> Diagnosis:
    seen, advice = diagnosis.seen, diagnosis.advice
    for secret in secrets:
        seen, advice = seen.replace(secret, MASK), advice.replace(secret, MASK)
    return replace(diagnosis, seen=seen, advice=advice)
