"""How much is tried at random: the same few examples in each `make test`, new and many ones by `make fuzz`."""

import os
from typing import Any

from hypothesis import HealthCheck, settings

FUZZ = int(os.environ.get("FUZZ", "0"))  # examples of each test; 0: the bounded profile

# A database that is emptied after each test, and not after each example, is meant: what was stored before may stay.
_SHARED: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
    "database": None,
}
settings.register_profile("bounded", max_examples=30, derandomize=True, **_SHARED)
settings.register_profile("fuzz", max_examples=FUZZ or 1, **_SHARED)
settings.load_profile("fuzz" if FUZZ else "bounded")

# A page takes a hundred times as long as a mail's words.
OF_PAGES = settings(max_examples=FUZZ // 5 or 12)
# A field of an event may have any value, and few of them are faults.
OF_EVENTS = settings(max_examples=FUZZ or 100)
