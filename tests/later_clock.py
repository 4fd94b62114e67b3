"""A clock that a test puts forward, instead of waiting."""

import time


class LaterClock:
    """What a module has instead of `time`: it is later by as many seconds as the test says."""

    later = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.later
