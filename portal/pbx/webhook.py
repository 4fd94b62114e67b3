"""Handles what a PBX posts: checks its key and signature, and records its event. A rejected request is counted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from psycopg.errors import ForeignKeyViolation

from portal import config
from portal.deliveries.intake import NotRecorded, accept_event
from portal.deliveries.report import DOCUMENTED, EventResult
from portal.events.parsing import Event, FieldError, Problem, ProblemKind
from portal.pbx import api_keys, rejections, signatures
from portal.pbx.api_keys import ApiClient
from portal.pbx.rate_limit import rate_limit
from portal.pbx.rejection_reasons import RejectionReason
from portal.pbx.rejections import RejectionGroup

BODY_NOT_READ = {ProblemKind.MEDIA_TYPE, ProblemKind.TOO_LARGE}  # so its signature cannot be checked


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """What a PBX sent. The body is empty if it could not be read."""

    key: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)  # their names are in lower case
    ip_address: str | None
    names_tenant_in_url: bool = False  # which a signature does not cover
    is_binary_mode: bool = False  # the event's attributes are in headers, which a signature does not cover either


@dataclass(frozen=True, slots=True)
class PayloadResult:
    """The result of a PBX make's own payload."""

    __pydantic_config__ = DOCUMENTED

    events: tuple[EventResult, ...]
    """The result of each event in it."""
    detail: str | None
    """Why none of it was recorded."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a request is rejected: the detail, if it depends on the request, the wrong fields, and when to try again."""

    reason: RejectionReason
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
    retry_after: int | None = None  # seconds

    @property
    def detail_for_owner(self) -> str:
        """What the key's owner reads beside the reason. The id that the client sent is not in it."""
        if self.reason is RejectionReason.CONFLICT:
            return ""
        return " ".join([self.detail, *(f"{error.field}: {error.message}" for error in self.errors)])


def reject_stranger(key: str, ip_address: str | None) -> Rejection | None:
    """Count and return the rejection of a request without a key of this portal: its body is not parsed."""
    if key and api_keys.is_issued(key):
        return None
    rejection = Rejection(RejectionReason.UNKNOWN_KEY if key else RejectionReason.NO_KEY)
    _count_rejection(rejection, None, None, ip_address)
    return rejection


def handle(request: WebhookRequest, events: Sequence[Event | Problem]) -> tuple[EventResult, ...] | Rejection:
    """Record the events, send their emails and return their results. Without an event, only the client is checked.

    If some are rejected, the first rejection is returned: then the PBX posts all of them again.
    """
    results, rejection = [], None
    for event in events or (None,):
        result = _handle_event(request, event)
        if isinstance(result, EventResult):
            results.append(result)
        elif isinstance(result, Rejection):
            rejection = rejection or result
            if result.reason.is_about_the_client:
                break
    return rejection or tuple(results)


def _handle_event(request: WebhookRequest, event: Event | Problem | None) -> EventResult | Rejection | None:
    """Return the result of an event, if there is one.

    What an earlier request found about the client is used if it leads to a recorded event. Otherwise it may be old.
    """
    kept = api_keys.recall(request.key, event)
    result = _handle_for_client(request, event, kept, is_kept=True) if kept else None
    if isinstance(result, EventResult):
        return result
    client = api_keys.authenticate(request.key, event)
    if client is None:
        result = Rejection(RejectionReason.UNKNOWN_KEY)
    elif client.rejected_for:
        result = Rejection(client.rejected_for)
    elif result is None or result.reason is not RejectionReason.TOO_MANY:
        result = _handle_for_client(request, event, client, was_counted=kept is not None)
    if isinstance(result, Rejection):
        _count_rejection(result, client, event, request.ip_address)
    return result


def _handle_for_client(
    request: WebhookRequest,
    event: Event | Problem | None,
    client: ApiClient,
    *,
    is_kept: bool = False,
    was_counted: bool = False,
) -> EventResult | Rejection | None:
    """Return the result of an event, if there is one.

    None too if the client `is_kept` from an earlier request, and its settings have changed since.
    """
    if isinstance(event, Problem) and event.kind in BODY_NOT_READ:
        return Rejection(RejectionReason[event.kind.name], event.detail)
    if rejection := _signature_rejection(request, client):
        return rejection
    if not was_counted and (rejection := _rate_rejection(client)):
        return rejection
    if isinstance(event, Problem):
        return Rejection(RejectionReason[event.kind.name], event.detail, event.errors)
    if event:
        return _record(request, client, event, is_kept=is_kept)
    api_keys.record_use(client, request.ip_address)
    return None


def _rate_rejection(client: ApiClient) -> Rejection | None:
    notation = config.current().event_rate_limit
    owners = {client.owner_id, client.plan.tenant.id if client.plan else client.owner_id}
    seconds = rate_limit(notation).seconds_to_wait(*owners)
    if not seconds:
        return None
    detail = f"A tenant may post {notation}, and so may all system keys together."
    return Rejection(RejectionReason.TOO_MANY, detail, retry_after=math.ceil(seconds))


def _signature_rejection(request: WebhookRequest, client: ApiClient) -> Rejection | None:
    if not client.signing_secrets:
        return None
    if reason := signatures.check_signature(request.body, request.headers, client.signing_secrets):
        return Rejection(reason)
    if request.is_binary_mode:
        uncovered = "the headers “ce-…”: send the whole event in the body."
    elif client.owner_id is None and request.names_tenant_in_url:
        uncovered = "the tenant in the URL: use a key of the tenant's own."
    else:
        return None
    return Rejection(RejectionReason.INVALID, f"A signature does not cover {uncovered}")


def _record(
    request: WebhookRequest, client: ApiClient, event: Event, *, is_kept: bool
) -> EventResult | Rejection | None:
    """Record the event and return its result. A tenant's key learns nothing about other tenants."""
    plan = client.plan
    if plan is None:
        return _without_tenant(event)
    if event.tenant not in (None, plan.tenant.domain):
        return Rejection(RejectionReason.FOREIGN_TENANT)
    if client.signing_secrets and event.id is None:
        # A signed request that someone replays is a repeat. Without a signature anyone could have set the header.
        event = replace(event, id=request.headers["webhook-id"])
    try:
        result = accept_event(plan, event, is_kept=is_kept)
    except ForeignKeyViolation:  # the tenant has just been deleted
        return _without_tenant(event)
    if result is NotRecorded.PLAN_IS_OLD:
        return None
    api_keys.record_use(client, request.ip_address)
    if isinstance(result, EventResult):
        return result
    return Rejection(
        RejectionReason.CONFLICT, f"An event with the id {event.id} and other content was recorded before."
    )


def _without_tenant(event: Event) -> Rejection:
    message = "There is no tenant with this domain." if event.tenant else "A system key must name the tenant."
    error = FieldError("tenant", message)
    return Rejection(RejectionReason.INVALID, "The event does not belong to a tenant.", (error,))


def _count_rejection(
    rejection: Rejection, client: ApiClient | None, event: Event | Problem | None, ip_address: str | None
) -> None:
    event_type = event.event_type.type if isinstance(event, Event) else getattr(event, "event_type", None)
    owner_id, key_id = (client.owner_id, client.key_id) if client else (None, None)
    group = RejectionGroup(owner_id, key_id, rejection.reason.key, event_type)
    rejections.record(group, ip_address, rejection.detail_for_owner)
