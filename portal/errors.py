"""Refusals: errors of the domain as values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something was not done: the field that it is about, and a sentence that a person can act on."""

    field: str
    text: str
