"""What an adapter describes: everything that the webhook and the pages need to know about a PBX make."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from portal.events.parsing import Event, FieldWarning, Problem

IGNORED = "This payload reports nothing that the portal sends email about. It was acknowledged and not recorded."

Schema: TypeAlias = Mapping[str, Any]


def add_warnings(event: Event | Problem, warnings: Iterable[FieldWarning]) -> Event | Problem:
    """Return an event with these warnings too, or the problem as it is."""
    warnings = tuple(warnings)
    return replace(event, warnings=warnings + event.warnings) if warnings and isinstance(event, Event) else event


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PayloadFormat:
    """The payloads that a make posts to `/api/v1/events/<make>`.

    `read` returns the events in a request's body. Without any, the payload is acknowledged, so that the PBX does not
    retry, and not recorded. Its second argument is the tenant's domain from the URL, if it is there. `schemas` returns
    the JSON Schema of each payload by name, with a title and a description. A property with a `const` is shown as the
    payload's name.
    """

    media_types: Sequence[str] = ("application/json",)  # that are accepted
    authentication: str  # how the make sends its key, in a sentence
    description: str  # what a developer should know about the payloads, in a few sentences
    read: Callable[[str, str | None], Sequence[Event | Problem]]
    schemas: Callable[[], Mapping[str, Schema]]
    examples: Mapping[str, Mapping[str, Any]]  # of the payloads that become an event, by the same names


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapter:
    """A PBX make, or a tool that posts events like one.

    Without a payload format its configuration snippet posts the portal's own events to `/api/v1/events`.
    """

    name: str
    title: str
    payload_format: PayloadFormat | None = None

    @property
    def snippet_template(self) -> str:
        """The template of its configuration snippet. It uses `key` and `endpoint_url`."""
        return f"pbx/snippets/_{self.name}.html"
