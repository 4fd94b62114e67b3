"""A host whose clock is hours wrong, while the database's is right."""

import sys
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest


class _AnyDatetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


def set_host_clock(monkeypatch: pytest.MonkeyPatch, error: timedelta) -> None:
    """Let `time.time` and each `datetime.now` of the portal be wrong by this much."""

    class WrongDatetime(datetime, metaclass=_AnyDatetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + error

    real_time = time.time
    monkeypatch.setattr(time, "time", lambda: real_time() + error.total_seconds())
    for name, module in list(sys.modules.items()):
        if name.startswith("portal.") and vars(module).get("datetime") is datetime:
            monkeypatch.setattr(module, "datetime", WrongDatetime)
