"""The event types that a PBX can report. To add one, define its data and add one `EventType` to `_ALL`."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from portal.events.event_type import EXPECTED, SECRET, EmailStyle, EventData, EventType
from portal.events.fields import (
    CHOICE,
    Count,
    Email,
    Extension,
    Host,
    Language,
    Password,
    PhoneNumber,
    Pin,
    Port,
    Seconds,
    ShortText,
    SipStatus,
    SipUser,
    Timestamp,
    Username,
    clean_text,
    host_in,
    is_blank,
    split_name,
    take_name,
)
from portal.events.values import (
    Placeholder,
    format_choice,
    format_copyable,
    format_duration,
    format_elapsed,
    format_out_of,
    format_phone_number,
)
from portal.web.i18n import to_translate

HIDDEN_NUMBER = "anonymous"  # in place of the number of a caller who hides it


class UserCreated(EventData):
    """Data of `user.created`."""

    extension_number: Annotated[SipUser, Placeholder("EXTENSION_NUMBER", format_copyable)]
    """The user's extension, also used as the SIP username."""
    extension_password: Annotated[Password | None, SECRET, Placeholder("EXTENSION_PASSWORD", format_copyable)] = None
    """The SIP password. Without it the welcome email has no QR code."""
    user_name: Annotated[Username | None, Placeholder("USER_NAME", format_copyable)] = None
    """The username for the PBX's own web pages."""
    user_password: Annotated[Password | None, SECRET, Placeholder("USER_PASSWORD", format_copyable)] = None
    """The password for these pages."""
    display_name: Annotated[
        ShortText | None, Placeholder("DISPLAY_NAME", fallbacks=("USER_NAME", "EXTENSION_NUMBER"))
    ] = None
    """The name that others see."""
    email: Email | None = None
    """The user's email address, to which the welcome email can be sent."""
    language: Language | None = None
    """The language of the user's welcome email, like "de". Default: the language of the tenant's emails."""
    voicemail_pin: Annotated[Pin | None, SECRET, Placeholder("VOICEMAIL_PIN", format_copyable)] = None
    """The voicemail PIN."""
    sip_domain: Annotated[Host | None, Placeholder("DOMAIN", format_copyable)] = None
    """The SIP domain of the extension. Default: the tenant's domain."""
    realm: ShortText | None = None
    """The realm with which the PBX challenges phones. Default: the tenant's realm, otherwise the SIP domain."""
    login_ip: Annotated[Host | None, Placeholder("SIP_PUBLIC_IP", format_copyable)] = None
    """The IP address or host name at which a phone registers."""
    private_ip: Annotated[Host | None, Placeholder("SIP_PRIVATE_IP", format_copyable)] = None
    """The same inside the company's network."""
    udp_port: Annotated[Port | None, Placeholder("UDP_PORT")] = None
    """The port for SIP over UDP."""
    tcp_port: Annotated[Port | None, Placeholder("TCP_PORT")] = None
    """The port for SIP over TCP."""
    tls_port: Annotated[Port | None, Placeholder("TLS_PORT")] = None
    """The port for SIP over TLS."""
    transport: Annotated[Literal["udp", "tcp", "tls"], CHOICE] | None = None
    """The transport for a phone. Default: the first one that has a port."""

    @model_validator(mode="before")
    @classmethod
    def _split_extension(cls, data: Any) -> Any:
        """Take the domain of "101@acme.example" for the SIP domain, unless there is one, and the name beside it."""
        extension, domain = data.get("extension_number"), data.get("sip_domain")
        data = take_name(data, "extension_number", "display_name")
        if isinstance(extension, str) and "@" in extension and (domain is None or is_blank(domain)):
            with suppress(PydanticCustomError):
                return {**data, "sip_domain": host_in(split_name(clean_text(extension))[1].partition("@")[2])}
        return data

    @property
    def user_email(self) -> str | None:
        """The new user's email address."""
        return self.email


class QueueData(EventData):
    """Data that all queue events have."""

    queue_number: Annotated[Extension, Placeholder("QUEUE_NUMBER")]
    """The queue's number. Too many events about one queue are combined into one summary email."""
    queue_name: Annotated[ShortText | None, Placeholder("QUEUE_NAME", fallbacks=("QUEUE_NUMBER",))] = None
    """The queue's name."""
    caller_number: Annotated[PhoneNumber, EXPECTED, Placeholder("CALLER_NUMBER", format_phone_number)] = HIDDEN_NUMBER
    """The caller's number. For a withheld number send any text, an empty one or null."""
    caller_name: Annotated[ShortText | None, Placeholder("CALLER_NAME")] = None
    """The caller's name."""
    call_id: ShortText | None = None
    """The PBX's own id of the call."""

    @model_validator(mode="before")
    @classmethod
    def _take_names(cls, data: Any) -> Any:
        return take_name(take_name(data, "queue_number", "queue_name"), "caller_number", "caller_name")

    @property
    def queue(self) -> str:
        """The queue's number."""
        return self.queue_number

    @property
    def queue_names(self) -> tuple[str, ...]:
        """The queue's number, and its name if the event has it."""
        return (self.queue_number, self.queue_name) if self.queue_name else (self.queue_number,)


class SlaBreached(QueueData):
    """Data of `queue.sla_breached`."""

    sla_seconds: Annotated[
        Seconds | None, EXPECTED, Placeholder("SLA_TIME", format_duration, unknown=to_translate("the time allowed"))
    ] = None
    """The queue's SLA threshold, in seconds."""
    waited_seconds: Annotated[Seconds | None, Placeholder("WAITED_TIME", format_duration)] = None
    """How long the caller has waited, in seconds."""
    callers_waiting: Annotated[Count | None, Placeholder("WAITSESSIONNO")] = None
    """How many callers are waiting in the queue."""
    callers_breached: Annotated[Count | None, Placeholder("BREACHSLANO")] = None
    """How many of them have waited longer than the threshold."""


class CallbackData(QueueData):
    """Data that both callback events have."""

    callback_number: Annotated[PhoneNumber, EXPECTED, Placeholder("CALL_BACK_NUMBER", format_phone_number)] = "unknown"
    """The number to call back."""
    requested_at: Annotated[Timestamp | None, Placeholder("WAITED_TIME", format_elapsed)] = None
    """When the caller requested the callback."""


class CallbackCompleted(CallbackData):
    """Data of `queue.callback_completed`."""

    agent_extension: Annotated[Extension | None, Placeholder("EXTENSION_NUMBER")] = None
    """The extension of the agent who called back."""
    attempts: Annotated[Count | None, Placeholder("ATTEMPT")] = None
    """The number of attempts needed."""


CALLBACK_REASONS = {
    "busy": to_translate("the line was busy"),
    "no_answer": to_translate("nobody answered"),
    "agent_no_answer": to_translate("the agent did not answer"),
    "invalid_number": to_translate("the number does not exist"),
    "trunk_error": to_translate("the call could not be put through"),
    "other": to_translate("another reason"),
}


class CallbackFailed(CallbackData):
    """Data of `queue.callback_failed`."""

    attempt: Annotated[Count | None, Placeholder("ATTEMPT", format_out_of("max_attempts"))] = None
    """The number of this attempt, starting at 1."""
    max_attempts: Count | None = None
    """The maximum number of attempts."""
    reason: Annotated[
        Annotated[Literal["busy", "no_answer", "agent_no_answer", "invalid_number", "trunk_error", "other"], CHOICE]
        | None,
        Placeholder("REASON", format_choice(CALLBACK_REASONS)),
    ] = None
    """Why it failed."""
    sip_status: SipStatus | None = None
    """The SIP status code (RFC 3261)."""


LOST_REASONS = {
    "hangup": to_translate("the caller hung up"),
    "timeout": to_translate("the maximum waiting time was reached"),
    "no_agents": to_translate("no agent was signed in"),
    "full": to_translate("the queue was full"),
    "other": to_translate("another reason"),
}


class CallLost(QueueData):
    """Data of `queue.call_lost`."""

    waited_seconds: Annotated[Seconds | None, Placeholder("WAITED_TIME", format_duration)] = None
    """How long the caller waited, in seconds."""
    position: Annotated[Count | None, Placeholder("POSITION")] = None
    """The caller's position in the queue, starting at 1."""
    reason: Annotated[
        Annotated[Literal["hangup", "timeout", "no_agents", "full", "other"], CHOICE] | None,
        Placeholder("REASON", format_choice(LOST_REASONS)),
    ] = None
    """Why the call ended."""


QUEUE_SAMPLE = {
    "queue_number": "8000",
    "queue_name": "Support",
    "caller_number": "+442079460123",
    "caller_name": "Ana Kovač",
    "call_id": "5f1c7a2e-8d1b-4c39",
}

CALLBACK_SAMPLE = QUEUE_SAMPLE | {"callback_number": "+442079460123", "requested_at": "2026-11-23T08:52:30Z"}

_ALL = (
    EventType(
        type="user.created",
        label="A new user was created",
        help="Sends a welcome email with the user's sign-in details.",
        style=EmailStyle.WELCOME,
        fields=UserCreated,
        qr_code=True,
        expiry=timedelta(hours=72),
        subject="Welcome to %%TENANT_NAME%%: your extension is %%EXTENSION_NUMBER%%",
        body="""\
# Welcome, %%DISPLAY_NAME%%

Your extension at %%TENANT_NAME%% is **%%EXTENSION_NUMBER%%**. To use it, install the free app
[Linphone](https://www.linphone.org) on your phone or computer.

Then add your extension to Linphone. This works only once:
%%QR_CODE%%

## Sign-in details

You can also sign in with these details: in Linphone as a third-party SIP account, or in any other SIP phone.

- **Extension number:** `%%EXTENSION_NUMBER%%`
- **Password:** `%%EXTENSION_PASSWORD%%`
- **PBX domain:** `%%DOMAIN%%`
- **Login IP address:** `%%SIP_PUBLIC_IP%%`
- **Internal IP address:** `%%SIP_PRIVATE_IP%%`
- **UDP port:** `%%UDP_PORT%%`
- **TCP port:** `%%TCP_PORT%%`
- **TLS port:** `%%TLS_PORT%%`
- **Voicemail PIN:** `%%VOICEMAIL_PIN%%`
- **Username:** `%%USER_NAME%%`
- **User password:** `%%USER_PASSWORD%%`

**Questions?** Write to %%REPLY_TO%%.

Do not forward this email: anyone who has it can use your phone.
""",
        footnote=(
            "You are receiving this email because an extension was created for you in the phone system of "
            "%%TENANT_NAME%%, or because you are on the list of recipients of its notifications."
        ),
        sample={
            "extension_number": "1001",
            "extension_password": "k7#Vt-29.qX",
            "user_name": "ana.kovac",
            "user_password": "Linden-4821-Kite",
            "display_name": "Ana Kovač",
            "email": "ana.kovac@acme.example",
            "language": "en",
            "voicemail_pin": "4821",
            "sip_domain": "acme.example",
            "realm": "acme.example",
            "login_ip": "203.0.113.10",
            "private_ip": "192.168.20.10",
            "udp_port": 5060,
            "tcp_port": 5060,
            "tls_port": 5061,
            "transport": "tls",
        },
    ),
    EventType(
        type="queue.sla_breached",
        label="When queue SLA time has been breached",
        plural="long waits",
        help="A caller has waited longer than the queue's SLA threshold.",
        style=EmailStyle.ALERT,
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

**What to do:** check who else can sign in to the queue and take calls.

[View this event in the portal](%%EVENT_URL%%)
""",
        sample={**QUEUE_SAMPLE, "sla_seconds": 60, "waited_seconds": 90, "callers_waiting": 4, "callers_breached": 2},
    ),
    EventType(
        type="queue.callback_completed",
        label="When a queue callback has been made",
        plural="completed callbacks",
        help="A caller was called back and answered.",
        style=EmailStyle.NOTICE,
        fields=CallbackCompleted,
        subject="Callback made for queue %%QUEUE_NAME%%: %%CALL_BACK_NUMBER%%",
        body="""\
# Callback made

**%%CALL_BACK_NUMBER%%** was called back for queue %%QUEUE_NAME%%, and the call was answered.

- **Number called:** %%CALL_BACK_NUMBER%%
- **Caller:** %%CALLER_NAME%% (%%CALLER_NUMBER%%)
- **Queue:** %%QUEUE_NAME%% (%%QUEUE_NUMBER%%)
- **When:** %%DATE_TIME%%
- **Waited:** %%WAITED_TIME%%
- **Agent:** %%EXTENSION_NUMBER%%
- **Attempts:** %%ATTEMPT%%

**What to do:** nothing. This email is for your information only.

[View this event in the portal](%%EVENT_URL%%)
""",
        sample={**CALLBACK_SAMPLE, "agent_extension": "1001", "attempts": 2},
    ),
    EventType(
        type="queue.callback_failed",
        label="When the queue callback is unsuccessful",
        plural="failed callbacks",
        help="A caller was called back but not reached.",
        style=EmailStyle.ALERT,
        fields=CallbackFailed,
        subject="Callback failed for queue %%QUEUE_NAME%%: %%CALL_BACK_NUMBER%%",
        body="""\
# Callback failed

**%%CALL_BACK_NUMBER%%** requested a callback from queue %%QUEUE_NAME%% but was not reached.

- **Number to call:** %%CALL_BACK_NUMBER%%
- **Caller:** %%CALLER_NAME%% (%%CALLER_NUMBER%%)
- **Queue:** %%QUEUE_NAME%% (%%QUEUE_NUMBER%%)
- **When:** %%DATE_TIME%%
- **Waiting for:** %%WAITED_TIME%%
- **Attempt:** %%ATTEMPT%%
- **Reason:** %%REASON%%

**What to do:** if this was the last attempt, call the number yourself.

[View this event in the portal](%%EVENT_URL%%)
""",
        sample={**CALLBACK_SAMPLE, "attempt": 2, "max_attempts": 3, "reason": "busy", "sip_status": 486},
    ),
    EventType(
        type="queue.call_lost",
        label="When a queue call is lost",
        plural="lost calls",
        help="A caller left the queue before anyone answered.",
        style=EmailStyle.ALERT,
        fields=CallLost,
        subject="Call lost in queue %%QUEUE_NAME%%: %%CALLER_NUMBER%%",
        body="""\
# Call lost in queue %%QUEUE_NAME%%

**%%CALLER_NAME%% (%%CALLER_NUMBER%%)** waited in the queue, but nobody answered.

- **Caller:** %%CALLER_NAME%% (%%CALLER_NUMBER%%)
- **Queue:** %%QUEUE_NAME%% (%%QUEUE_NUMBER%%)
- **When:** %%DATE_TIME%%
- **Waited:** %%WAITED_TIME%%
- **Position:** %%POSITION%%
- **Reason:** %%REASON%%

**What to do:** call back soon and check whether the queue has enough agents.

[View this event in the portal](%%EVENT_URL%%)
""",
        sample={**QUEUE_SAMPLE, "waited_seconds": 90, "position": 3, "reason": "hangup"},
    ),
)

EVENT_TYPES: Mapping[str, EventType] = MappingProxyType({event_type.type: event_type for event_type in _ALL})
