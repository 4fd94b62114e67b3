"""Captured email: a folder with one file per message, the newest 500."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from urllib.parse import unquote

CAPACITY = 500
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class CapturedEmail:
    """A captured message. Its number is its time of arrival in nanoseconds since 1970."""

    number: int
    source: bytes
    message: EmailMessage

    @property
    def captured_at(self) -> datetime:
        """The time of arrival."""
        return datetime.fromtimestamp(self.number / NANOSECONDS, UTC)

    def header(self, name: str) -> str:
        """Return a header's text, or "" if the message has none."""
        return str(self.message.get(name, ""))

    def body(self, subtype: str) -> str | None:
        """Return the alternative of this subtype, `html` or `plain`, or None."""
        part = self.message.get_body((subtype,))
        return None if part is None else str(part.get_content())

    def inline_part(self, content_id: str) -> EmailMessage | None:
        """Return the part that the HTML alternative names as `cid:…` (RFC 2392), or None."""
        wanted = f"<{unquote(content_id)}>"
        parts = (part for part in self.message.walk() if part.get("Content-ID", "").strip() == wanted)
        return next(parts, None)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A folder of captured email with the newest `capacity` messages."""

    folder: Path
    capacity: int = CAPACITY

    def add(self, source: bytes) -> None:
        """Store a message and delete the oldest beyond the capacity."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{time.time_ns()}.eml"
        unfinished = file.with_suffix(".part")
        unfinished.write_bytes(source)
        unfinished.rename(file)
        for number in self.numbers()[self.capacity :]:
            self._file(number).unlink(missing_ok=True)

    def numbers(self) -> Sequence[int]:
        """Return the numbers of all messages, the newest first."""
        return sorted((int(file.stem) for file in self.folder.glob("*.eml")), reverse=True)

    def newest(self, limit: int) -> Sequence[CapturedEmail]:
        """Return the newest messages."""
        messages = (self.find(number) for number in self.numbers()[:limit])
        return [message for message in messages if message is not None]

    def find(self, number: int) -> CapturedEmail | None:
        """Return the message with this number, or None."""
        with suppress(FileNotFoundError):
            source = self._file(number).read_bytes()
            return CapturedEmail(number, source, message_from_bytes(source, policy=default))
        return None

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.eml"
