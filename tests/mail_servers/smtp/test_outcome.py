"""The meaning of replies: their kind, the pause and the advice."""

import pytest

from portal.mail_servers.smtp.outcome import (
    BUSY,
    Pause,
    ReplyKind,
    SmtpFailure,
    SmtpReply,
    Stage,
    advice_for,
    classify,
    pause_for,
)

EARLY = (Stage.GREETING, Stage.EHLO)


@pytest.mark.parametrize(
    ("stage", "code", "kind"),
    [
        *[(stage, 421, ReplyKind.TEMPORARY) for stage in Stage],
        *[(stage, None, ReplyKind.TEMPORARY) for stage in Stage],
        *[(stage, 451, ReplyKind.TEMPORARY) for stage in Stage],
        *[(stage, 554, ReplyKind.SETTINGS) for stage in EARLY],
        (Stage.TLS, 454, ReplyKind.TEMPORARY),
        (Stage.TLS, 502, ReplyKind.SETTINGS),
        (Stage.AUTH, 454, ReplyKind.TEMPORARY),
        (Stage.AUTH, 432, ReplyKind.TEMPORARY),
        *[(Stage.AUTH, code, ReplyKind.SETTINGS) for code in (530, 534, 535, 538)],
        (Stage.MAIL, 550, ReplyKind.SETTINGS),
        (Stage.MAIL, 552, ReplyKind.SETTINGS),
        (Stage.RCPT, 450, ReplyKind.TEMPORARY),
        (Stage.RCPT, 552, ReplyKind.TEMPORARY),
        (Stage.RCPT, 550, ReplyKind.REJECTED),
        (Stage.RCPT, 553, ReplyKind.REJECTED),
        (Stage.DATA, 452, ReplyKind.TEMPORARY),
        (Stage.DATA, 552, ReplyKind.REJECTED),
        (Stage.DATA, 554, ReplyKind.REJECTED),
        (Stage.DATA, 250, ReplyKind.ACCEPTED),
        (Stage.DATA, 354, ReplyKind.TEMPORARY),
        (Stage.MAIL, 250, ReplyKind.TEMPORARY),
    ],
)
def test_a_reply_means_what_the_table_says(stage: Stage, code: int | None, kind: ReplyKind) -> None:
    reply = classify(stage, code, "text")
    assert (reply.kind, reply.stage, reply.code, reply.text) == (kind, stage, code, "text")


@pytest.mark.parametrize(
    ("text", "enhanced_code", "rest"),
    [
        ("5.1.1 no such user", "5.1.1", "no such user"),
        ("5.1.1 no such\n5.1.1 user", "5.1.1", "no such user"),
        ("#5.1.1 no such user", "5.1.1", "no such user"),
        ("sorry, no mailbox here (#5.1.1)", "5.1.1", "sorry, no mailbox here (#5.1.1)"),
        ("4.7.500 busy", "4.7.500", "busy"),
        ("no code at all", None, "no code at all"),
        ("blocked 5.1.1.7 here", None, "blocked 5.1.1.7 here"),
        ("5.1.1.7 is blocked", None, "5.1.1.7 is blocked"),
        ("5.1 half a code", None, "5.1 half a code"),
        ("", None, ""),
    ],
)
def test_the_enhanced_code_is_separated_from_the_text(text: str, enhanced_code: str | None, rest: str) -> None:
    reply = classify(Stage.RCPT, 550, text)
    assert (reply.enhanced_code, reply.text) == (enhanced_code, rest)


def test_the_text_is_one_bounded_line_of_visible_characters() -> None:
    hostile = "a\x00b\r\nc\td\x1b[31m\u202egnp.exe\u2028e\x85f\udcff Grüße 通知"
    assert classify(Stage.DATA, 550, hostile).text == "a b c d [31m gnp.exe e f Grüße 通知"
    long = classify(Stage.DATA, 550, "x" * 10_000).text
    assert len(long) == 500
    assert long.endswith("…")


@pytest.mark.parametrize(
    ("reply", "pause"),
    [
        (BUSY, Pause.NONE),
        (classify(Stage.CONNECT, None, ""), Pause.BRIEF),
        (classify(Stage.NAME, None, ""), Pause.BRIEF),
        (classify(Stage.GREETING, 451, ""), Pause.BRIEF),
        (classify(Stage.AUTH, 454, ""), Pause.BRIEF),
        (classify(Stage.MAIL, 421, ""), Pause.BRIEF),
        (classify(Stage.DATA, None, ""), Pause.BRIEF),
        (SmtpReply(ReplyKind.UNKNOWN, Stage.DATA, None, None, ""), Pause.BRIEF),
        (classify(Stage.AUTH, 535, ""), Pause.UNTIL_SAVED),
        (SmtpReply(ReplyKind.SETTINGS, Stage.TOKEN, None, None, ""), Pause.UNTIL_SAVED),
        (classify(Stage.TOKEN, None, ""), Pause.BRIEF),
        (SmtpReply(ReplyKind.SETTINGS, Stage.AUTH, None, None, ""), Pause.NONE),
        (SmtpReply(ReplyKind.SETTINGS, Stage.TLS, None, None, ""), Pause.NONE),
        (classify(Stage.DATA, 550, "5.2.251 Sender throttled due to continuous mailbox full errors."), Pause.BRIEF),
        (classify(Stage.DATA, 554, "5.2.252 SendAsDenied"), Pause.NONE),
        (classify(Stage.MAIL, 550, ""), Pause.NONE),
        (classify(Stage.RCPT, 451, ""), Pause.NONE),
        (classify(Stage.RCPT, 550, ""), Pause.NONE),
        (classify(Stage.DATA, 451, ""), Pause.NONE),
        (classify(Stage.DATA, 250, ""), Pause.NONE),
    ],
)
def test_the_pause_after_a_reply(reply: SmtpReply, pause: Pause) -> None:
    assert pause_for(reply) is pause


def test_the_longest_pause_applies() -> None:
    accepted, busy, rejected = (
        classify(Stage.DATA, 250, ""),
        classify(Stage.RCPT, 421, ""),
        classify(Stage.AUTH, 535, ""),
    )
    assert max(map(pause_for, [accepted, busy])) is Pause.BRIEF
    assert max(map(pause_for, [rejected, busy, accepted])) is Pause.UNTIL_SAVED


@pytest.mark.parametrize("kind", ReplyKind)
@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("code", [None, 250, 421, 451, 550, 599])
def test_advice_is_one_sentence_for_every_reply(kind: ReplyKind, stage: Stage, code: int | None) -> None:
    sentence = advice_for(SmtpReply(kind, stage, code, None, "text"))
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert ". " not in sentence


def test_a_failure_has_its_reply() -> None:
    reply = classify(Stage.CONNECT, None, "No response in time.")
    assert SmtpFailure(reply).reply is reply


def test_what_is_redacted_reveals_no_provider() -> None:
    reply = SmtpReply(ReplyKind.SETTINGS, Stage.TOKEN, None, None, "Microsoft rejected access: invalid_grant.")
    assert "Microsoft" not in reply.redacted().text
    assert reply.redacted().text
