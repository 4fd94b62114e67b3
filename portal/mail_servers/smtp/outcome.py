"""What a mail server's reply means, by stage and code, and what a person can do about it."""

import re
import unicodedata
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from itertools import chain
from typing import Final

from flask_babel import gettext

from portal.mail_servers.advice import Advice, is_host_of
from portal.mail_servers.advice_on_connecting import CONNECTING
from portal.mail_servers.advice_on_sending import SENDING, SESSION_LIMIT, THROTTLED
from portal.mail_servers.advice_on_tokens import TOKENS
from portal.web.i18n import to_translate

ADVICE: Final = (*TOKENS, *CONNECTING, *SENDING)
MAX_TEXT_LENGTH = 500  # characters

# RFC 2034, section 4: an enhanced code begins the text of each line. qmail and Cisco write (#5.1.1) or #5.1.1.
_LEADING_CODE = re.compile(r"^[ \t]*#?([245]\.\d{1,3}\.\d{1,3})(?![\d.])[\s:-]*", re.MULTILINE)
_BRACKETED_CODE = re.compile(r"\(#([245]\.\d{1,3}\.\d{1,3})\)")


class Stage(StrEnum):
    """The stages of an SMTP session, in order. DATA includes the content and the reply to its final dot.

    TOKEN comes before the session: an access token is fetched.
    """

    TOKEN = "token"  # noqa: S105 (a name)
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
    def is_about_message(self) -> bool:
        """Whether the stage is about one message, rather than about the mail server and signing in."""
        return self in (Stage.MAIL, Stage.RCPT, Stage.DATA)


class ReplyKind(StrEnum):
    """What a reply means for the message and one recipient."""

    ACCEPTED = "accepted"
    TEMPORARY = "temporary"  # worth another attempt
    SETTINGS = "settings"  # the mail server's settings have to be corrected first
    REJECTED = "rejected"  # permanently
    UNKNOWN = "unknown"  # no reply after the final dot: the message may have been accepted


class Pause(IntEnum):
    """How long to wait before the mail server is used again: of several, the longest applies."""

    NONE = 0
    BRIEF = 1  # a minute, so that a dead server delays one request instead of every request
    UNTIL_SAVED = 2  # until its settings are saved again: repeated sign-ins could lock the account


@dataclass(frozen=True, slots=True)
class SmtpReply:
    """A mail server's reply about one recipient, or what went wrong before there was a reply.

    `code` is the SMTP reply code, None without a readable reply; `enhanced_code` is RFC 3463's. `text` is the mail
    server's text on one line, at most 500 characters, or the portal's own where there was no reply.
    """

    kind: ReplyKind
    stage: Stage
    code: int | None = None
    enhanced_code: str | None = None
    text: str = ""

    @property
    def line(self) -> str:
        """The reply as one line, translated if the text is the portal's own."""
        return reply_text(self.code, self.enhanced_code, self.text)

    def redacted(self) -> "SmtpReply":
        """Return the reply without text that could reveal the mail server's host, provider or account."""
        if self.stage is Stage.TOKEN:
            return replace(self, text=to_translate("The portal got no access token to sign in with."))
        return self if self.stage.is_about_message or self.code is None else replace(self, text="")


BUSY: Final = SmtpReply(
    ReplyKind.TEMPORARY, Stage.CONNECT, text=to_translate("The mail server is busy with other emails from this portal.")
)


class SmtpFailure(Exception):
    """Ends an SMTP session; `reply` applies to every recipient that has no reply yet."""

    def __init__(self, reply: SmtpReply) -> None:
        super().__init__(reply)
        self.reply = reply


def classify(stage: Stage, code: int | None, text: str) -> SmtpReply:
    """Return the reply with its meaning, by the table in `docs/reference/delivery.md`.

    For DATA a 2yz counts as the reply to the final dot. Without a code, the text is the portal's own.
    """
    match = _LEADING_CODE.search(text) or _BRACKETED_CODE.search(text)
    enhanced_code = match[1] if match else None
    kind = _kind_by_codes(stage, code, enhanced_code)
    reply = SmtpReply(kind, stage, code, enhanced_code, _one_line(text))
    if code and stage.is_about_message and kind in (ReplyKind.SETTINGS, ReplyKind.REJECTED):
        # It may be about the account or the mail server, and so not the fault of the message or of the recipient.
        return replace(reply, kind=ReplyKind(best_advice(reply).means or kind))
    return reply


def _kind_by_codes(stage: Stage, code: int | None, enhanced_code: str | None) -> ReplyKind:
    """Return what a reply means if its words say nothing else."""
    match (code or 0) // 100, stage:
        case 2, Stage.DATA:
            return ReplyKind.ACCEPTED
        case 5, _ if stage.is_about_message and (enhanced_code or "").startswith("4"):
            return ReplyKind.TEMPORARY  # the enhanced code decides (RFC 3463), as in "554 4.7.1"
        case 5, Stage.RCPT | Stage.DATA:
            return ReplyKind.REJECTED
        case 5, _:
            return ReplyKind.SETTINGS
    return ReplyKind.TEMPORARY


def _one_line(text: str) -> str:
    """Return the text without its enhanced codes, control and invisible characters, on one line, bounded."""
    text = _LEADING_CODE.sub("", text)
    if not (text.isascii() and text.isprintable()):
        # Zl and Zp break lines, C* are control, format (also text direction), surrogate and private characters.
        text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - 1] + "…"


def pause_for(reply: SmtpReply) -> Pause:
    """Return how long to wait before the mail server is used again after this reply."""
    if reply is BUSY or reply.kind is ReplyKind.ACCEPTED:
        return Pause.NONE
    if reply.code and re.match(THROTTLED, reply.line, re.IGNORECASE):
        return Pause.BRIEF
    if reply.kind is ReplyKind.SETTINGS:
        rejected = reply.stage is Stage.TOKEN or (reply.stage is Stage.AUTH and reply.code is not None)
        return Pause.UNTIL_SAVED if rejected else Pause.NONE
    if reply.kind is ReplyKind.UNKNOWN or (
        reply.kind is ReplyKind.TEMPORARY and (reply.code in (None, 421) or not reply.stage.is_about_message)
    ):
        return Pause.BRIEF
    return Pause.NONE


def may_succeed_in_new_session(reply: SmtpReply) -> bool:
    """Return whether the reply may be about a session that was used before: the end of it, or a limit."""
    if reply.stage is Stage.MAIL:
        return True
    return reply.kind is ReplyKind.TEMPORARY and (reply.code in (None, 421) or is_session_limit(reply))


def is_session_limit(reply: SmtpReply) -> bool:
    """Return whether the mail server has had enough of this session, and may accept the message in a new one."""
    return reply.kind is ReplyKind.TEMPORARY and (
        reply.enhanced_code == "4.4.5" or re.search(SESSION_LIMIT, reply.text, re.IGNORECASE) is not None
    )


def advice_for(reply: SmtpReply, port: int | None = None, *, host: str = "", will_retry: bool = True) -> str:
    """Return one sentence of advice for an administrator, untranslated, as it is stored.

    Some depends on the mail server's port; a provider's is given only at the provider's hosts. With `will_retry` the
    portal retries after a temporary failure.
    """
    if reply.kind is ReplyKind.ACCEPTED:
        return to_translate("The mail server accepted the email.")
    if reply.kind is ReplyKind.UNKNOWN:
        return to_translate(
            "The mail server received the email but did not confirm it, so it may have been sent: "
            "check the mailbox before you send it again."
        )
    advice = best_advice(reply, port, host)
    return advice.text if will_retry else advice.without_retry or advice.text


def best_advice(reply: SmtpReply, port: int | None = None, host: str = "") -> Advice:
    """Return the first advice about the reply: its codes decide first (RFC 3463), then its words, then its stage."""
    # From the codes again, not from what the reply was found to mean: so the same advice is found as by `classify`.
    has_failed = reply.code is not None and reply.code >= 400
    kind = _kind_by_codes(reply.stage, reply.code, reply.enhanced_code) if has_failed else reply.kind
    decides = kind is ReplyKind.TEMPORARY or (has_failed and reply.stage.is_about_message)
    possible = [
        advice
        for advice in ADVICE
        if (not advice.stages or reply.stage in advice.stages)
        and advice.kind in (None, kind)
        and (decides or advice.means in (None, kind))
        and advice.port in (None, port)
        and (not advice.hosts or is_host_of(advice.hosts, host))
    ]
    line, words = f"{reply.code or ''} {reply.enhanced_code or ''} {reply.text}", _without_addresses(reply.text)
    by_code = (advice for advice in possible if advice.code and re.match(advice.code, line, re.IGNORECASE))
    by_words = (advice for advice in possible if advice.words and re.search(advice.words, words, re.IGNORECASE))
    general = (advice for advice in possible if advice.general_code or not (advice.code or advice.words))
    return next(chain(by_code, by_words, (advice for advice in general if re.match(advice.general_code, line))))


def _without_addresses(text: str) -> str:
    """Return the text without addresses and links: their words are not the mail server's."""
    words = re.sub(r"<[^<>]*>", " ", text).split()
    return " ".join(word for word in words if "@" not in word and "://" not in word)


def reply_text(code: int | None, enhanced_code: str | None, text: str | None) -> str:
    """Return a reply as one line: code, enhanced code and text. The portal's own text is translated."""
    if code is None and text:
        return str(gettext(text))
    return " ".join(str(part) for part in (code, enhanced_code, text) if part)
