"""What became of a mail: the meaning of a mail server's reply, by stage and code, and what a person can do about it."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from flask_babel import gettext

from portal.languages import to_translate
from portal.mail_servers.remedies import REMEDIES

TEXT_LENGTH = 500  # characters

# RFC 2034, section 4: an enhanced code begins the text of each line. qmail and Cisco write (#5.1.1) or #5.1.1.
_LEADING_CODE = re.compile(r"^\s*#?([245]\.\d{1,3}\.\d{1,3})(?![\d.])[\s:-]*", re.MULTILINE)
_BRACKETED_CODE = re.compile(r"\(#([245]\.\d{1,3}\.\d{1,3})\)")


class Stage(StrEnum):
    """How far a conversation came, in its order; DATA includes the content and the reply to its final dot."""

    NAME = "name"
    CONNECT = "connect"
    TLS = "tls"
    GREETING = "greeting"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"

    @property
    def is_of_the_mail(self) -> bool:
        """Whether it is about a mail, and no longer about the server and who signs in to it."""
        return self in (Stage.MAIL, Stage.RCPT, Stage.DATA)


class Kind(StrEnum):
    """What an outcome means for the mail."""

    SENT = "sent"
    TEMPORARY = "temporary"  # worth another try
    SETTINGS = "settings"  # held until someone mends the settings
    REFUSED = "refused"  # for good
    UNKNOWN = "unknown"  # no reply after the final dot: it may have been sent


class Pause(StrEnum):
    """How long the mail server is to be left alone."""

    NONE = "none"
    BRIEF = "brief"  # a minute, so that a dead server costs one request and not every request
    UNTIL_SAVED = "until_saved"  # until its settings are saved again: no hammering into a lockout


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mail for one recipient.

    `code` is the SMTP reply code, None where no reply could be read; `enhanced_code` is RFC 3463's. `text` is the mail
    server's own words on one line, at most 500 characters, or ours where there are none.
    """

    kind: Kind
    stage: Stage
    code: int | None
    enhanced_code: str | None
    text: str

    def discreet(self) -> "Outcome":
        """Return it without the words that may say where a mail server is and who signs in to it."""
        return self if self.stage.is_of_the_mail or self.code is None else replace(self, text="")


class Reply(Protocol):
    """What is kept of what a mail server said."""

    @property
    def code(self) -> int | None: ...  # noqa: D102 (as in `Outcome`)
    @property
    def enhanced_code(self) -> str | None: ...  # noqa: D102
    @property
    def text(self) -> str | None: ...  # noqa: D102


class Fault(Exception):
    """Ends a conversation with a mail server; `outcome` says what that means for every recipient still open."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def classify(stage: Stage, code: int | None, text: str) -> Outcome:
    """Return the meaning of a reply, by the table in `docs/delivery.md`.

    Args:
        stage: what the reply answers; for DATA a 2yz is taken as the reply to the final dot.
        code: the reply code (RFC 5321, section 4.2), None where no reply came or none that can be read.
        text: what the mail server said after the code, lines separated by a line feed, or our own words.
    """
    match = _LEADING_CODE.search(text) or _BRACKETED_CODE.search(text)
    return Outcome(_kind(stage, code), stage, code, match[1] if match else None, _readable(text))


def _kind(stage: Stage, code: int | None) -> Kind:
    match (code or 0) // 100, stage:
        case 2, Stage.DATA:
            return Kind.SENT
        case 5, Stage.RCPT:
            # RFC 5321, section 4.5.3.1.10: 552 at RCPT means too many recipients at once, as 452 does.
            return Kind.TEMPORARY if code == 552 else Kind.REFUSED
        case 5, Stage.DATA:
            return Kind.REFUSED
        case 5, _:
            return Kind.SETTINGS
    return Kind.TEMPORARY


def _readable(text: str) -> str:
    """Return the text without its enhanced codes, control and invisible characters, on one line, bounded."""
    text = _LEADING_CODE.sub("", text)
    if not (text.isascii() and text.isprintable()):
        # Zl and Zp break lines, C* are control, format (also text direction), surrogate and private characters.
        text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    text = " ".join(text.split())
    return text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1] + "…"


def pause_for(outcome: Outcome) -> Pause:
    """Return how long this outcome asks to leave the mail server alone."""
    if outcome.kind is Kind.SETTINGS:
        rejected = outcome.stage is Stage.AUTH and outcome.code is not None
        return Pause.UNTIL_SAVED if rejected else Pause.NONE
    if outcome.kind is Kind.UNKNOWN or (
        outcome.kind is Kind.TEMPORARY and (outcome.code in (None, 421) or not outcome.stage.is_of_the_mail)
    ):
        return Pause.BRIEF
    return Pause.NONE


def longest_pause(outcomes: Iterable[Outcome]) -> Pause:
    """Return the longest pause that any of these outcomes asks for."""
    return max(map(pause_for, outcomes), key=list(Pause).index, default=Pause.NONE)


def advice(outcome: Outcome, port: int | None = None, *, by_hand: bool = False) -> str:
    """Return one sentence about the outcome that a tenant's administrator can act on: in English, as it is stored.

    Args:
        outcome: what happened.
        port: the mail server's port where it is known: some advice depends on it.
        by_hand: whether somebody tried it out, so that nothing is tried again by itself.
    """
    if outcome.kind is Kind.SENT:
        return to_translate("The mail server accepted the mail.")
    if outcome.kind is Kind.UNKNOWN:
        return to_translate(
            "The mail server took the mail but did not confirm it, so it may have been sent: "
            "look into the mailbox before you send it again."
        )
    reply = f"{outcome.code or ''} {outcome.enhanced_code or ''} {outcome.text}"
    remedy = next(each for each in REMEDIES if each.fits(outcome.kind, outcome.stage, reply, port))
    return remedy.by_hand if by_hand and remedy.by_hand else remedy.sentence


def words_of(reply: Reply) -> str:
    """Return a reply as the mail server gave it: code, enhanced code and words; ours in the reader's language."""
    if reply.code is None and reply.text:
        return str(gettext(reply.text))
    return " ".join(str(part) for part in (reply.code, reply.enhanced_code, reply.text) if part)
