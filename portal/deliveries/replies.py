"""What a mail server said about the recipients of one attempt, and what it means, in words for people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from flask_babel import gettext

from portal.deliveries.models import DeliveryRecipient
from portal.deliveries.states import Status
from portal.languages import to_translate
from portal.mail_servers.outcome import Kind, Outcome, Stage, advice, words_of

STAGES: Final = {
    Stage.NAME: to_translate("while looking the mail server up"),
    Stage.CONNECT: to_translate("while connecting"),
    Stage.TLS: to_translate("while agreeing on encryption"),
    Stage.GREETING: to_translate("while saying hello"),
    Stage.EHLO: to_translate("while saying hello"),
    Stage.AUTH: to_translate("while signing in"),
    Stage.MAIL: to_translate("while naming the sender"),
    Stage.RCPT: to_translate("while naming the recipient"),
    Stage.DATA: to_translate("while handing the mail over"),
}
_KINDS: Final = {
    Status.SENT: Kind.SENT,
    Status.FAILED: Kind.REFUSED,
    Status.HELD: Kind.SETTINGS,
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What these recipients were told alike.

    `said` are the mail server's words, `stage` tells when it said them, and `means` what to do about them.
    """

    addresses: Sequence[str]
    status: str
    stage: str
    said: str
    means: str


def replies(
    told: Sequence[Mapping[str, Any]], mail_server: str | None, *, is_the_last: bool = False
) -> Sequence[Reply]:
    """Return the replies of an attempt, those together that are the same.

    Args:
        told: the fields of each recipient's row as they were after the attempt.
        mail_server: its address and port, as the attempt has it.
        is_the_last: whether the portal tries no more by itself.
    """
    return list(_replies(told, _port(mail_server), is_the_last))


def _replies(told: Sequence[Mapping[str, Any]], port: int | None, is_the_last: bool) -> Iterator[Reply]:
    for (status, stage, code, enhanced, text), same in groupby(told, _alike):
        outcome = Outcome(_kind(status, stage, code), Stage(stage), code, enhanced, text or "")
        yield Reply(
            addresses=[each["address"] for each in same],
            status=status,
            stage=gettext(STAGES[outcome.stage]),
            said=words_of(outcome),
            means=_means(outcome, port, is_the_last),
        )


def meaning(row: DeliveryRecipient, mail_server: str | None) -> str:
    """Return what to do about the last thing that a recipient's row was told; empty where there is nothing to do."""
    if row.stage is None:
        return ""
    kind = _kind(row.status, row.stage, row.code)
    return _means(Outcome(kind, Stage(row.stage), row.code, row.enhanced_code, row.text or ""), _port(mail_server))


def _means(outcome: Outcome, port: int | None, is_the_last: bool = False) -> str:
    return "" if outcome.kind is Kind.SENT else gettext(advice(outcome, port, by_hand=is_the_last))


def _alike(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(one[name] for name in ("status", "stage", "code", "enhanced_code", "text"))


def _kind(status: str, stage: str, code: int | None) -> Kind:
    if stage == Stage.DATA and code is None and status in {Status.DEFERRED, Status.HELD}:
        return Kind.UNKNOWN  # no reply after the final dot
    return _KINDS.get(Status(status), Kind.TEMPORARY)


def _port(mail_server: str | None) -> int | None:
    port = (mail_server or "").rpartition(":")[2]
    return int(port) if port.isdecimal() else None
