"""Log lines, of the portal and its libraries: as text or JSON, with the request and the event that they belong to.

An error that repeats is written once, and then counted: one line in each interval says how often it came.
"""

import logging
import re
import sys
import threading
import time
from collections.abc import Hashable
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import structlog
from structlog.typing import EventDict, Processor

from portal.config import Settings

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")
FOLDING_INTERVAL: Final = 10.0  # seconds
MAX_FOLDED: Final = 1000  # different errors that are remembered
# For the web server, whose own set-up of log lines would come first.
GRANIAN: Final = {"formatters": {}, "handlers": {}, "loggers": {"_granian": {"handlers": [], "propagate": True}}}
_NO_CONTEXT: Final[list[Any]] = [None, None]

# The headers of a request, later its ID; and the event's ID. A list, because each thread sets it for each request.
_context: ContextVar[list[Any]] = ContextVar("log_context", default=_NO_CONTEXT)


def begin(headers: Any = None) -> None:
    """Begin a request with these headers, or a job without any: the thread's lines belong to it from now on."""
    _context.set([headers, None])


def note_event(event_id: UUID) -> None:
    """Add the event's ID to the lines of this request or job."""
    if (context := _context.get()) is not _NO_CONTEXT:
        context[1] = event_id


def configure(settings: Settings) -> None:
    """Write all log lines to standard error as the settings say. May be called again."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, FoldingHandler):
            root.removeHandler(handler)
            handler.close()
    folding = FoldingHandler()
    folding.setFormatter(_formatter(settings.log_format))
    root.addHandler(folding)
    logging.getLogger("portal").setLevel(level)
    # Procrastinate writes two lines for each job: only those who debug want to read them.
    root.setLevel(level if level in {logging.DEBUG, logging.ERROR} else logging.WARNING)


def _formatter(log_format: str) -> logging.Formatter:
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(["request_id", "event_id", "repeated"]),
        structlog.processors.format_exc_info,  # without the values of variables, which may be secrets
    ]
    own: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "json":
        own += [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer(ensure_ascii=False)]
    else:
        own.append(_as_text)
    return structlog.stdlib.ProcessorFormatter(processors=own, foreign_pre_chain=shared)


def _add_context(record: logging.LogRecord) -> None:
    context = _context.get()
    if context is _NO_CONTEXT:
        return
    request, event_id = context
    if request is not None:
        if not isinstance(request, str):
            request = context[0] = _request_id(request.get("x-request-id"))
        record.request_id = request
    if event_id is not None:
        record.event_id = str(event_id)


def _request_id(given: str | None) -> str:
    return given if given and REQUEST_ID.fullmatch(given) else uuid4().hex


def _as_text(_logger: object, _method: str, line: EventDict) -> str:
    """Return one line, and a traceback below it. Nobody can forge another line by a text with line breaks."""
    exception = line.pop("exception", None)
    timestamp, level, logger, message = (line.pop(name) for name in ("timestamp", "level", "logger", "event"))
    fields = "".join(f" {name}={value}" for name, value in line.items())
    text = f"{timestamp} {level.upper()} {logger}: {_on_one_line(message)}{fields}"
    return "\n  ".join((text, *map(_on_one_line, exception.split("\n")))) if exception else text


def _on_one_line(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


@dataclass(slots=True)
class _Folded:
    since: float
    count: int = 0
    last: logging.LogRecord | None = None


class FoldingHandler(logging.Handler):
    """Writes an error at once, and those like it within an interval as one line at its end, with their number."""

    def __init__(self, interval: float = FOLDING_INTERVAL) -> None:
        super().__init__()
        self._interval = interval
        self._folded: dict[Hashable, _Folded] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count it. The caller holds the handler's lock."""
        _add_context(record)
        if record.levelno < logging.WARNING:
            self._write(record)
            return
        now, kind = time.monotonic(), _kind(record)
        folded = self._folded.get(kind)
        if folded is None or (folded.last is None and now - folded.since > self._interval):
            if len(self._folded) >= MAX_FOLDED:
                self._folded = {other: it for other, it in self._folded.items() if it.last}
            self._folded[kind] = _Folded(now)
            self._write(record)
            return
        folded.count += 1
        if folded.last is None:
            self._start_timer(kind, folded.since + self._interval - now)
        folded.last = _without_objects(record)

    def close(self) -> None:
        """Write what is only counted yet."""
        with self.lock or nullcontext():
            folded, self._folded = self._folded, {}
            for it in folded.values():
                self._write_count(it)
        super().close()

    def _start_timer(self, kind: Hashable, seconds: float) -> None:
        timer = threading.Timer(max(seconds, 0), self._end_interval, [kind])
        timer.daemon = True
        with suppress(RuntimeError):  # the interpreter ends, and closes the handler
            timer.start()

    def _end_interval(self, kind: Hashable) -> None:
        with self.lock or nullcontext():
            if folded := self._folded.get(kind):
                self._write_count(folded)
                folded.since, folded.count, folded.last = time.monotonic(), 0, None

    def _write_count(self, folded: _Folded) -> None:
        if folded.last:
            folded.last.repeated = folded.count
            self._write(folded.last)

    def _write(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 (as all handlers do: a line that cannot be written harms nothing else)
            self.handleError(record)


def _without_objects(record: logging.LogRecord) -> logging.LogRecord:
    """Return a line without its traceback, which would keep a request and its connection."""
    kept = copy(record)
    kept.msg, kept.args, kept.exc_info, kept.exc_text = record.getMessage(), None, None, None
    return kept


def _kind(record: logging.LogRecord) -> Hashable:
    """Return what makes two lines the same error: where it was logged, and which exception came from where."""
    what: Hashable = record.msg
    if record.exc_info and record.exc_info[2]:
        frame = record.exc_info[2]
        while frame.tb_next:
            frame = frame.tb_next
        what = (record.exc_info[0], frame.tb_frame.f_code.co_filename, frame.tb_lineno)
    return record.name, record.levelno, record.pathname, record.lineno, what
