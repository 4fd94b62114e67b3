"""Rounds that alternate between contenders, and how much of the machine other programs use meanwhile."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import psutil

from bench.measurement import Samples, report
from bench.processes import cpu_seconds, detached

MAX_OTHER_SHARE: Final = 0.10  # of the machine: with more, it is not quiet

_other_shares: Final[list[float]] = []  # of the machine, in each round since the last note


def compare(contenders: Mapping[str, Callable[[], float]], rounds: int) -> Samples:
    """Return each contender's value in each round. Each round starts with a different contender."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        first = number % len(names)
        with watched():
            for name in names[first:] + names[:first]:
                samples[name].append(contenders[name]())
                report(f"  round {number + 1} of {rounds}: {name} {samples[name][-1]:,.4g}")
    return samples


@contextmanager
def watched() -> Iterator[None]:
    """Note how much of the machine other programs use during the block."""
    began, used = time.monotonic(), _seconds_of_others()
    yield
    capacity = (time.monotonic() - began) * (os.cpu_count() or 1)
    _other_shares.append((_seconds_of_others() - used) / capacity)


def noise_note() -> str:
    """Return a sentence about the rounds since the last call, empty if the machine was quiet in all of them."""
    noisy = [share for share in _other_shares if share > MAX_OTHER_SHARE]
    rounds = len(_other_shares)
    _other_shares.clear()
    if not noisy:
        return ""
    return (
        f"**The machine was not quiet**: in {len(noisy)} of {rounds} rounds other programs used more than "
        f"{MAX_OTHER_SHARE:.0%} of it, up to {max(noisy):.0%}."
    )


def _seconds_of_others() -> float:
    """Return the processor time of everything but the contenders, Postgres, the sink and the load generator.

    The network's interrupts are theirs and are left out. What the host of a virtual machine takes away counts.
    """
    all_programs = psutil.cpu_times()
    used = all_programs.user + all_programs.nice + all_programs.system + all_programs.steal
    return float(used) - sum(cpu_seconds([os.getpid(), *detached]))
