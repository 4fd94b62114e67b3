"""Sessions with one Microsoft mailbox: at most three at a time, over all processes.

Microsoft rejects a fourth one (`432 4.3.2`) and counts those that are kept for the next message.
"""

import time
from hashlib import sha256
from typing import Final

from portal.database import process_locks
from portal.database.engine import DATABASE_ERRORS
from portal.database.process_locks import ProcessLock
from portal.mail_servers.smtp.outcome import BUSY, SmtpFailure

# learn.microsoft.com, "Message storage and concurrent connection throttling for SMTP Authenticated Submission"
MAX_SESSIONS: Final = 3
POLL_INTERVAL: Final = 0.1  # seconds


def take_session(owner: int | None, mailbox: str, max_wait: float) -> ProcessLock:
    """Return the right to one session, to release when it has ended.

    Another owner's sessions do not count: anyone can enter any mailbox, and would hold up those that it belongs to.

    Raises:
        SmtpFailure: BUSY if no session ends within `max_wait` seconds, or Postgres does not answer.
    """
    digest = sha256(f"{owner}\0{mailbox}".encode()).digest()
    first = int.from_bytes(digest[:8], signed=True) & ~0b11
    keys = [first | number for number in range(MAX_SESSIONS)]
    ends = time.monotonic() + max_wait
    while True:
        try:
            lock = process_locks.take_any(keys)
        except DATABASE_ERRORS:
            raise SmtpFailure(BUSY) from None
        if lock is not None:
            return lock
        if time.monotonic() + POLL_INTERVAL > ends:
            raise SmtpFailure(BUSY)
        time.sleep(POLL_INTERVAL)
