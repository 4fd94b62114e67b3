"""Medians and ratios of rounds, and their tables in the terminal and in the docs."""

import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Final, TypeAlias

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "performance.md"

Samples: TypeAlias = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Table:
    """The result of a part: a title, column names, rows of text, and notes for the reader."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __str__(self) -> str:
        """Return it as Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join(filter(None, (f"**{self.title}**", table, self.note)))


def ratio(samples: Samples, name: str, peer: str) -> float:
    """Return the median over the rounds of one contender's value divided by its peer's in the same round."""
    return median(one / other for one, other in zip(samples[name], samples[peer], strict=True))


def median_of(samples: Samples, name: str) -> float:
    """Return the median of a contender's rounds."""
    return median(samples[name])


def p99(values: Iterable[float]) -> float:
    """Return the 99th percentile."""
    return quantiles(values, n=100)[-1]


def ratio_text(value: float) -> str:
    """Return a ratio as text."""
    return f"{value:.2f} ×"  # noqa: RUF001


def report(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def machine() -> str:
    """Return a description of this machine."""
    models = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()) or [platform.machine()]
    return f"{os.cpu_count()} cores of {models[0]}, Python {platform.python_version()}"


def publish(part: str, tables: Iterable[Table]) -> None:
    """Write the tables into docs/reference/performance.md, between the part's marks.

    Raises:
        ValueError: the page has no marks for this part.
    """
    begin, end = f"<!-- {part} -->", f"<!-- /{part} -->"
    text = "\n\n".join([*map(str, tables), f"Measured on {datetime.now(UTC):%d %B %Y}, {machine()}."])
    marked = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    page, found = marked.subn(lambda _: f"{begin}\n\n{text}\n\n{end}", PAGE.read_text())
    if not found:
        raise ValueError(f"{PAGE} has no marks {begin} and {end}")
    PAGE.write_text(page)
