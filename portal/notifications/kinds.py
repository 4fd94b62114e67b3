"""The event kinds. A further kind is one more `EventKind` in `KINDS`, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias

from portal.languages import to_translate
from portal.notifications import placeholders
from portal.notifications.fields import (
    SECRET,
    Address,
    Count,
    EventData,
    Host,
    Line,
    Moment,
    Number,
    Password,
    Port,
    Seconds,
    SipStatus,
)
from portal.notifications.placeholders import Feeds, duration, one_of, out_of, since, to_copy
from portal.notifications.templates import Look

DataModel: TypeAlias = type[EventData]

HAPPENED: Final = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)  # when the events happened whose data are the samples


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EventKind:
    """What the portal knows about one kind of event.

    `subject` and `body` are its default mail, Markdown with `%%NAME%%` placeholders; `why` stands at the mail's foot.
    `sample` is data as a PBX sent it at `HAPPENED`. After `expiry` a mail that is still open is given up.
    """

    type: str
    label: str
    plural: str = ""  # what many of them are called: "calls lost"
    help: str
    look: Look
    fields: DataModel
    subject: str
    body: str
    sample: Mapping[str, Any]
    expiry: timedelta = timedelta(hours=24)
    why: str = (
        "You get this mail because your address is among the recipients of notifications from the phone system of "
        "%%TENANT_NAME%%. The administrator of %%TENANT_NAME%% can change that."
    )
    qr_code: bool = False

    def __repr__(self) -> str:
        return f"<EventKind {self.type}>"

    @property
    def has_user(self) -> bool:
        """Whether its events are about a person whom the mail can reach too."""
        return self.fields.addressee is not EventData.addressee

    def sample_data(self, time: datetime) -> EventData:
        """Return the sample as the data of an event of that time."""
        return self.fields.model_validate(self.sample).moved(time - HAPPENED)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The placeholders that its mail may use."""
        return placeholders.names(self.fields) + (("QR_CODE",) if self.qr_code else ())


class UserCreated(EventData):
    """Data of `user.created`."""

    extension_number: Annotated[Number, Feeds("EXTENSION_NUMBER", to_copy)]
    """The number that the user is called at, and signs in with."""
    extension_password: Annotated[Password | None, SECRET, Feeds("EXTENSION_PASSWORD", to_copy)] = None
    """The SIP password. Without it the welcome mail has no QR code."""
    user_name: Annotated[Line | None, Feeds("USER_NAME", to_copy)] = None
    """The name for signing in to the PBX's own pages."""
    user_password: Annotated[Password | None, SECRET, Feeds("USER_PASSWORD", to_copy)] = None
    """The password for these pages."""
    display_name: Annotated[Line | None, Feeds("DISPLAY_NAME", otherwise=("USER_NAME", "EXTENSION_NUMBER"))] = None
    """The name that others see."""
    email: Address | None = None
    """Where the user's own welcome mail goes."""
    voicemail_pin: Annotated[Password | None, SECRET, Feeds("VOICEMAIL_PIN", to_copy)] = None
    """The PIN of the voicemail."""
    sip_domain: Annotated[Host | None, Feeds("DOMAIN", to_copy)] = None
    """Where the extension belongs. Without it: the tenant's domain."""
    login_ip: Annotated[Host | None, Feeds("SIP_PUBLIC_IP", to_copy)] = None
    """The address or name at which a phone signs in."""
    private_ip: Annotated[Host | None, Feeds("SIP_PRIVATE_IP", to_copy)] = None
    """The same from inside the company's network."""
    udp_port: Annotated[Port | None, Feeds("UDP_PORT")] = None
    """The port of SIP over UDP."""
    tcp_port: Annotated[Port | None, Feeds("TCP_PORT")] = None
    """The port of SIP over TCP."""
    tls_port: Annotated[Port | None, Feeds("TLS_PORT")] = None
    """The port of SIP over TLS."""
    transport: Literal["udp", "tcp", "tls"] | None = None
    """How a phone is to sign in. Without it: the first that has a port."""

    @property
    def addressee(self) -> str | None:
        """The new user's address."""
        return self.email


class QueueData(EventData):
    """Data that all queue events share."""

    queue_number: Annotated[Number, Feeds("QUEUE_NUMBER")]
    """The queue's number. Too many events about one queue become a digest."""
    queue_name: Annotated[Line | None, Feeds("QUEUE_NAME", otherwise=("QUEUE_NUMBER",))] = None
    """The queue's name, as people know it."""
    caller_number: Annotated[Number, Feeds("CALLER_NUMBER")]
    """Who called; any text for a caller who hides the number."""
    caller_name: Annotated[Line | None, Feeds("CALLER_NAME")] = None
    """The caller's name."""
    call_id: Line | None = None
    """The PBX's own id of the call."""

    @property
    def queue(self) -> str:
        """The queue's number."""
        return self.queue_number


class SlaBreached(QueueData):
    """Data of `queue.sla_breached`."""

    sla_seconds: Annotated[Seconds, Feeds("SLA_TIME", duration)]
    """The queue's SLA threshold, in seconds."""
    waited_seconds: Annotated[Seconds | None, Feeds("WAITED_TIME", duration)] = None
    """How long the caller has waited, in seconds."""
    callers_waiting: Annotated[Count | None, Feeds("WAITSESSIONNO")] = None
    """How many callers wait in the queue."""
    callers_breached: Annotated[Count | None, Feeds("BREACHSLANO")] = None
    """How many of them wait longer than the threshold."""


class CallbackCompleted(QueueData):
    """Data of `queue.callback_completed`."""

    callback_number: Annotated[Number, Feeds("CALL_BACK_NUMBER")]
    """The number that was called back."""
    requested_at: Annotated[Moment | None, Feeds("WAITED_TIME", since)] = None
    """When the caller asked for it."""
    agent_extension: Annotated[Number | None, Feeds("EXTENSION_NUMBER")] = None
    """The extension of the agent who called."""
    attempts: Annotated[Count | None, Feeds("ATTEMPT")] = None
    """How many attempts it took."""


CALLBACK_REASONS = {
    "busy": to_translate("the line was busy"),
    "no_answer": to_translate("nobody answered"),
    "agent_no_answer": to_translate("the agent did not answer"),
    "invalid_number": to_translate("the number does not exist"),
    "trunk_error": to_translate("the call could not be put through"),
    "other": to_translate("another reason"),
}


class CallbackFailed(QueueData):
    """Data of `queue.callback_failed`."""

    callback_number: Annotated[Number, Feeds("CALL_BACK_NUMBER")]
    """The number to call."""
    requested_at: Annotated[Moment | None, Feeds("WAITED_TIME", since)] = None
    """When the caller asked for it."""
    attempt: Annotated[Count | None, Feeds("ATTEMPT", out_of("max_attempts"))] = None
    """Which attempt it was, from 1."""
    max_attempts: Count | None = None
    """How many there are at the most."""
    reason: Annotated[
        Literal["busy", "no_answer", "agent_no_answer", "invalid_number", "trunk_error", "other"] | None,
        Feeds("REASON", one_of(CALLBACK_REASONS)),
    ] = None
    """Why it failed."""
    sip_status: SipStatus | None = None
    """The SIP status code (RFC 3261)."""


LOST_REASONS = {
    "hangup": to_translate("the caller hung up"),
    "timeout": to_translate("the longest waiting time was over"),
    "no_agents": to_translate("no agent was signed in"),
    "other": to_translate("another reason"),
}


class CallLost(QueueData):
    """Data of `queue.call_lost`."""

    waited_seconds: Annotated[Seconds | None, Feeds("WAITED_TIME", duration)] = None
    """How long the caller waited, in seconds."""
    position: Annotated[Count | None, Feeds("POSITION")] = None
    """The caller's place in the queue, from 1."""
    reason: Annotated[
        Literal["hangup", "timeout", "no_agents", "other"] | None, Feeds("REASON", one_of(LOST_REASONS))
    ] = None
    """Why the call ended."""


QUEUE_SAMPLE = {
    "queue_number": "8000",
    "queue_name": "Support",
    "caller_number": "+442079460123",
    "caller_name": "Ana Kovač",
    "call_id": "5f1c7a2e-8d1b-4c39",
}

_ALL = (
    EventKind(
        type="user.created",
        label="New user",
        help="A new user was created: a welcome mail with what the user needs to sign in.",
        look=Look.WELCOME,
        fields=UserCreated,
        qr_code=True,
        expiry=timedelta(hours=72),
        subject="Welcome to %%TENANT_NAME%%: your extension is %%EXTENSION_NUMBER%%",
        body="""\
# Welcome, %%DISPLAY_NAME%%

You have a phone at %%TENANT_NAME%%: extension **%%EXTENSION_NUMBER%%**. This is what you need to sign in.

- **Extension number:** `%%EXTENSION_NUMBER%%`
- **Password:** `%%EXTENSION_PASSWORD%%`
- **PBX domain:** `%%DOMAIN%%`
- **Login IP address:** `%%SIP_PUBLIC_IP%%`
- **Internal IP address:** `%%SIP_PRIVATE_IP%%`
- **UDP port:** `%%UDP_PORT%%`
- **TCP port:** `%%TCP_PORT%%`
- **TLS port:** `%%TLS_PORT%%`
- **Voicemail PIN:** `%%VOICEMAIL_PIN%%`
- **User name:** `%%USER_NAME%%`
- **User password:** `%%USER_PASSWORD%%`

## Set up your phone

Install the free app [Linphone](https://www.linphone.org) on your phone or computer.
Sign in with the details above, as a third-party SIP account.

**Quicker:** in Linphone choose *Scan QR code* and point it at this picture. It works once and fills in everything.
%%QR_CODE%%

Keep this mail to yourself: whoever has it can use your phone.
""",
        why=(
            "You get this mail because an extension was made for you in the phone system of %%TENANT_NAME%%, "
            "or because your address is among the recipients of its notifications."
        ),
        sample={
            "extension_number": "1001",
            "extension_password": "k7#Vt-29.qX",
            "user_name": "ana.kovac",
            "user_password": "Linden-4821-Kite",
            "display_name": "Ana Kovač",
            "email": "ana.kovac@acme.example",
            "voicemail_pin": "4821",
            "sip_domain": "acme.example",
            "login_ip": "203.0.113.10",
            "private_ip": "192.168.20.10",
            "udp_port": 5060,
            "tcp_port": 5060,
            "tls_port": 5061,
            "transport": "tls",
        },
    ),
    EventKind(
        type="queue.sla_breached",
        label="SLA breached",
        plural="long waits",
        help="A caller has waited longer than the queue's SLA threshold.",
        look=Look.ALERT,
        fields=SlaBreached,
        subject="Long wait in queue %%QUEUE_NAME%%: more than %%SLA_TIME%%",
        body="""\
# Long wait in queue %%QUEUE_NAME%%

**%%CALLER_NAME%% (%%CALLER_NUMBER%%)** has waited longer than %%SLA_TIME%%, the queue's SLA threshold.

- **Caller:** %%CALLER_NAME%% (%%CALLER_NUMBER%%)
- **Queue:** %%QUEUE_NAME%% (%%QUEUE_NUMBER%%)
- **When:** %%DATE_TIME%%
- **Waited so far:** %%WAITED_TIME%%
- **SLA threshold:** %%SLA_TIME%%
- **Callers waiting:** %%WAITSESSIONNO%%
- **Over the threshold:** %%BREACHSLANO%%

**What to do:** see who can sign in to the queue and take calls.
""",
        sample={
            **QUEUE_SAMPLE,
            "sla_seconds": 60,
            "waited_seconds": 90,
            "callers_waiting": 4,
            "callers_breached": 2,
        },
    ),
    EventKind(
        type="queue.callback_completed",
        label="Callback completed",
        plural="callbacks done",
        help="A queue callback was made and answered.",
        look=Look.NOTICE,
        fields=CallbackCompleted,
        subject="Callback done for queue %%QUEUE_NAME%%: %%CALL_BACK_NUMBER%%",
        body="""\
# Callback done

**%%CALL_BACK_NUMBER%%** was called back for queue %%QUEUE_NAME%% and answered.

- **Number called:** %%CALL_BACK_NUMBER%%
- **Caller:** %%CALLER_NAME%% (%%CALLER_NUMBER%%)
- **Queue:** %%QUEUE_NAME%% (%%QUEUE_NUMBER%%)
- **When:** %%DATE_TIME%%
- **Waited:** %%WAITED_TIME%%
- **Agent:** %%EXTENSION_NUMBER%%
- **Attempts:** %%ATTEMPT%%

**What to do:** nothing. This is for your information.
""",
        sample={
            **QUEUE_SAMPLE,
            "callback_number": "+442079460123",
            "requested_at": "2026-11-23T08:52:30Z",
            "agent_extension": "1001",
            "attempts": 2,
        },
    ),
    EventKind(
        type="queue.callback_failed",
        label="Callback failed",
        plural="callbacks failed",
        help="An attempt to call a caller of a queue back failed.",
        look=Look.ALERT,
        fields=CallbackFailed,
        subject="Callback failed for queue %%QUEUE_NAME%%: %%CALL_BACK_NUMBER%%",
        body="""\
# Callback failed

**%%CALL_BACK_NUMBER%%** asked queue %%QUEUE_NAME%% for a callback and was not reached.

- **Number to call:** %%CALL_BACK_NUMBER%%
- **Caller:** %%CALLER_NAME%% (%%CALLER_NUMBER%%)
- **Queue:** %%QUEUE_NAME%% (%%QUEUE_NUMBER%%)
- **When:** %%DATE_TIME%%
- **Waiting for:** %%WAITED_TIME%%
- **Attempt:** %%ATTEMPT%%
- **Reason:** %%REASON%%

**What to do:** if this was the last attempt, call the number yourself.
""",
        sample={
            **QUEUE_SAMPLE,
            "callback_number": "+442079460123",
            "requested_at": "2026-11-23T08:52:30Z",
            "attempt": 2,
            "max_attempts": 3,
            "reason": "busy",
            "sip_status": 486,
        },
    ),
    EventKind(
        type="queue.call_lost",
        label="Call lost",
        plural="calls lost",
        help="A caller left a queue before anybody answered.",
        look=Look.ALERT,
        fields=CallLost,
        subject="Call lost in queue %%QUEUE_NAME%%: %%CALLER_NUMBER%%",
        body="""\
# Call lost in queue %%QUEUE_NAME%%

**%%CALLER_NAME%% (%%CALLER_NUMBER%%)** waited, and nobody answered.

- **Caller:** %%CALLER_NAME%% (%%CALLER_NUMBER%%)
- **Queue:** %%QUEUE_NAME%% (%%QUEUE_NUMBER%%)
- **When:** %%DATE_TIME%%
- **Waited:** %%WAITED_TIME%%
- **Position:** %%POSITION%%
- **Reason:** %%REASON%%

**What to do:** call back soon, and see whether the queue has enough agents.
""",
        sample={**QUEUE_SAMPLE, "waited_seconds": 90, "position": 3, "reason": "hangup"},
    ),
)

KINDS: Mapping[str, EventKind] = MappingProxyType({kind.type: kind for kind in _ALL})
