"""A few mails at a time through one mail server, so that a slow one does not keep every thread of the process."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

MOMENT = 0.25  # seconds to wait for a free place


class Bulkhead:
    """The places of one process at each mail server."""

    def __init__(self, places: int) -> None:
        self._places: defaultdict[int, BoundedSemaphore] = defaultdict(lambda: BoundedSemaphore(places))

    @contextmanager
    def place(self, server_id: int) -> Iterator[bool]:
        """Hold a place at the server during the block. Gives False where all stayed taken for a moment."""
        places = self._places[server_id]
        taken = places.acquire(timeout=MOMENT)
        try:
            yield taken
        finally:
            if taken:
                places.release()
