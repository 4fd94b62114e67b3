"""What the portal knows about a type of event, and the base of the data of all events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, Final, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from portal.events import values
from portal.events.fields import is_blank

SAMPLE_TIME: Final = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)  # the time of the events in the samples


SECRET: Final = object()  # a field with this never appears in logs and pages, and is erased after its email was sent
# A field with this is described as required. An event without it is recorded with the default, and a warning.
EXPECTED: Final = object()


class EventData(BaseModel):
    """The base of all event data. Unknown fields are dropped; null or blank text counts as not sent."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {name: value for name, value in data.items() if value is not None and not is_blank(value)}

    def __repr_args__(self) -> Any:
        """Keep secrets out of tracebacks and logs."""
        return [(name, value) for name, value in super().__repr_args__() if name not in self.secret_names()]

    @classmethod
    @cache
    def secret_names(cls) -> frozenset[str]:
        """Return the names of the secret fields."""
        return frozenset(name for name, field in cls.model_fields.items() if SECRET in field.metadata)

    @classmethod
    @cache
    def expected_names(cls) -> frozenset[str]:
        """Return the names of the fields that clients must send, without which an event is recorded all the same."""
        return frozenset(name for name, field in cls.model_fields.items() if EXPECTED in field.metadata)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the expected fields as required."""
        described = handler(core_schema)
        model = handler.resolve_ref_schema(described)
        for name in cls.expected_names():
            schema = model["properties"][name]
            schema.pop("default")
            if "anyOf" in schema:
                schema |= schema.pop("anyOf")[0]  # the other one is null
        required = cls.expected_names() | {*model.get("required", ())}
        model["required"] = [name for name in model["properties"] if name in required]
        return described

    @property
    def queue(self) -> str | None:
        """The number of the queue that the event is about, if any."""
        return None

    @property
    def queue_names(self) -> tuple[str, ...]:
        """The number and the name of the queue that the event is about, if any."""
        return ()

    @property
    def uses_setting_of(self) -> str | None:
        """The type whose setting decides whether this event is emailed, if it is another type."""
        return None

    @property
    def user_email(self) -> str | None:
        """The email address of the person that the event is about, if it carries one."""
        return None

    def public_fields(self) -> dict[str, Any]:
        """Return the fields that may be kept and shown, as JSON values."""
        return self.model_dump(mode="json", exclude_none=True, exclude=set(self.secret_names()) or None)

    def public_json(self) -> str:
        """Return the same fields as JSON text."""
        return self.model_dump_json(exclude_none=True, exclude=set(self.secret_names()) or None)

    def secret_fields(self) -> dict[str, Any]:
        """Return the secret fields, as JSON values. Together with the public fields they validate as the same data."""
        names = self.secret_names()
        return self.model_dump(mode="json", exclude_none=True, include=set(names)) if names else {}

    def shift_times(self, by: timedelta) -> Self:
        """Return the same data with all its times moved."""
        data: Self = _shift_times(self, by)
        return data


def _shift_times(value: Any, by: timedelta) -> Any:
    if isinstance(value, datetime):
        return value + by
    if isinstance(value, tuple):
        return tuple(_shift_times(item, by) for item in value)
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _shift_times(field, by) for name, field in value})
    return value


DataModel: TypeAlias = type[EventData]


class EmailStyle(StrEnum):
    """How urgent an email looks."""

    ALERT = "alert"
    NOTICE = "notice"
    WELCOME = "welcome"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class EventType:
    """A type of event that a PBX can report, and its default email.

    `subject`, `body` and `footnote` are the email's text: Markdown with `%%NAME%%` placeholders, and the sentence
    below it that says why the reader gets it. `sample` is data as a PBX sends it for an event at `SAMPLE_TIME`.
    `expiry` is how long sending is retried.
    """

    type: str
    label: str
    plural: str = ""  # for several such events: "lost calls"
    help: str
    style: EmailStyle
    fields: DataModel
    subject: str
    body: str
    sample: Mapping[str, Any]
    expiry: timedelta = timedelta(hours=24)
    footnote: str = (
        "You are receiving this email because you are on the list of recipients of notifications from the phone system "
        "of %%TENANT_NAME%%. The administrator of %%TENANT_NAME%% can change this."
    )
    qr_code: bool = False

    def __repr__(self) -> str:
        return f"<EventType {self.type}>"

    @property
    def has_user(self) -> bool:
        """Whether its events are about a person to whom the email can also be sent."""
        return self.fields.user_email is not EventData.user_email

    def sample_data(self, time: datetime) -> EventData:
        """Return the data of a sample event at this time."""
        return self.fields.model_validate(self.sample).shift_times(time - SAMPLE_TIME)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names of the placeholders that its email may use."""
        return values.placeholder_names(self.fields) + (("QR_CODE",) if self.qr_code else ())
