"""A connection to a mail server: commands, replies, and the reply for each recipient."""

import time
from dataclasses import replace

import flask_mail
import pytest

from portal.mail_servers.smtp.client import AuthMode, Encryption, RecipientsNotAccepted, SmtpConnection, SmtpSettings
from portal.mail_servers.smtp.client import send as send_mail
from portal.mail_servers.smtp.connect import Deadline, Timeouts
from portal.mail_servers.smtp.mime import UnsafeHeader
from portal.mail_servers.smtp.outcome import Pause, ReplyKind, SmtpFailure, SmtpReply, Stage
from portal.mail_servers.smtp.session import MAX_PIPELINED_RECIPIENTS
from tests.mail_servers.example_message import (
    ANN,
    BOB,
    CYD,
    PATIENT,
    SENDER,
    message,
    pause_after,
    pipelining,
    reply_to,
    send,
    settings,
)
from tests.smtp_peer import LOCAL, Fault, ReplyThenHang, Script, SlowReply, SmtpPeer, closed_port

__all__ = ["pipelining"]


# An accepted message


def test_an_accepted_message_arrives_unchanged() -> None:
    with SmtpPeer() as peer:
        result = send(settings(peer), [ANN, BOB])
    accepted = SmtpReply(ReplyKind.ACCEPTED, Stage.DATA, 250, "2.0.0", "queued as 4711")
    assert (result, pause_after(result)) == ({ANN: accepted, BOB: accepted}, Pause.NONE)
    (received,) = peer.messages
    assert (received.sender, received.recipients) == (SENDER, [ANN, BOB])
    assert received.content == message().as_bytes()
    assert peer.conversations[0].verbs == ["EHLO", "MAIL", "RCPT", "RCPT", "DATA", "QUIT"]


def test_a_bare_line_end_cannot_end_the_message() -> None:
    class Raw(flask_mail.Message):
        def as_bytes(self) -> bytes:
            return b".first\n.\nMAIL FROM:<x@y>\r.\rlast"

    with SmtpPeer() as peer:
        send_mail(settings(peer), Raw("s", [ANN], sender=SENDER), SENDER, [ANN], PATIENT)
    assert peer.messages[0].transmitted == b"..first\r\n..\r\nMAIL FROM:<x@y>\r\n..\r\nlast\r\n"


def test_ehlo_has_the_given_name_or_our_ip_address() -> None:
    with SmtpPeer() as peer:
        send(settings(peer))
        send_mail(settings(peer, helo_name="portal.example"), message(), SENDER, [ANN], PATIENT)
    assert [conversation.commands[0].lower() for conversation in peer.conversations] == [
        "ehlo [127.0.0.1]",
        "ehlo portal.example",
    ]


# Replies that are not in test_matrix.py


@pytest.mark.parametrize("step", ["ehlo", "mail", "rcpt", "data", "dot"])
def test_an_unexpected_reply_is_no_success(step: str) -> None:
    wrong = "250 fine" if step == "data" else "354 go on"
    reply = reply_to({step: wrong})
    assert reply.kind is (ReplyKind.UNKNOWN if step == "dot" else ReplyKind.TEMPORARY)
    assert reply.text == "The mail server sent an unexpected reply."


def test_an_unasked_reply_is_not_taken_for_the_next_one() -> None:
    with SmtpPeer({"data": "354 go ahead\n250 2.0.0 accepted already"}) as peer:
        assert send(settings(peer))[ANN].kind is ReplyKind.TEMPORARY
    assert not peer.messages


def test_a_reply_has_a_maximum_length() -> None:
    assert reply_to({"ehlo": "250-on and on\n" * 9000 + "250 end"}).text == "The reply is not SMTP."
    assert reply_to({"ehlo": "250 " + "x" * 200_000}).text == "The reply is not SMTP."


def test_a_reply_sent_before_closing_is_read() -> None:
    assert reply_to({"greeting": "220 peer.test\n421 4.3.2 closing"}).code == 421


@pytest.mark.slow
def test_a_server_that_is_slow_at_every_step_is_limited_by_the_total() -> None:
    slow = {step: SlowReply("250 ok", 0.04) for step in ("ehlo", "mail", "rcpt")}
    began = time.monotonic()
    script = {"greeting": SlowReply("220 ok", 0.04), **slow, "data": SlowReply("354 go ahead", 60)}
    assert reply_to(script, timeouts=replace(PATIENT, total=0.8)).kind is ReplyKind.TEMPORARY
    assert 0.7 < time.monotonic() - began < 30


@pytest.mark.slow
def test_a_server_that_reads_no_content_is_limited_by_the_total() -> None:
    class Huge(flask_mail.Message):
        def as_bytes(self) -> bytes:
            return b"x" * 16_000_000  # more than the network buffers hold

    began = time.monotonic()
    with SmtpPeer({"data": ReplyThenHang("354 go ahead")}) as peer:
        result = send_mail(settings(peer), Huge(sender=SENDER), SENDER, [ANN], replace(PATIENT, total=0.8))
    assert result[ANN].kind is ReplyKind.TEMPORARY
    assert time.monotonic() - began < 30


def test_the_reply_to_the_final_dot_has_its_own_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Deadline.start_final_step

    def start_after_the_total(deadline: Deadline, seconds: float) -> None:
        deadline._end = deadline._step_end = 0
        start(deadline, seconds)

    monkeypatch.setattr(Deadline, "start_final_step", start_after_the_total)
    assert reply_to({}).kind is ReplyKind.ACCEPTED


def test_a_closed_port() -> None:
    with closed_port() as port:
        result = send(SmtpSettings("127.0.0.1", port, Encryption.NONE, AuthMode.NONE, network_policy=LOCAL))
    assert (result[ANN].stage, result[ANN].kind) == (Stage.CONNECT, ReplyKind.TEMPORARY)
    assert pause_after(result) is Pause.BRIEF


def test_a_reset_instead_of_the_greeting() -> None:
    reply = reply_to({"greeting": Fault.RESET})
    assert reply.kind is ReplyKind.TEMPORARY
    assert reply.stage in (Stage.CONNECT, Stage.GREETING)  # whichever comes first


# Recipients


def test_each_recipient_has_its_own_reply() -> None:
    with SmtpPeer({"rcpt": ["250 ok", "550 5.1.1 no such user", "451 4.7.1 greylisted"]}) as peer:
        result = send(settings(peer), [ANN, BOB, CYD])
    kinds = {recipient: reply.kind for recipient, reply in result.items()}
    assert kinds == {ANN: ReplyKind.ACCEPTED, BOB: ReplyKind.REJECTED, CYD: ReplyKind.TEMPORARY}
    assert list(result) == [ANN, BOB, CYD]
    assert peer.messages[0].recipients == [ANN]


def test_no_content_is_sent_if_every_recipient_is_rejected(pipelining: bool) -> None:
    with SmtpPeer({"rcpt": "550 5.1.1 no such user"}) as peer:
        result = send(settings(peer), [ANN, BOB])
    assert {reply.kind for reply in result.values()} == {ReplyKind.REJECTED}
    assert peer.conversations[0].verbs == ["EHLO", "MAIL", "RCPT", "RCPT", *["DATA"][:pipelining], "QUIT"]


def test_421_defers_all_recipients_but_the_rejected() -> None:
    with SmtpPeer({"rcpt": ["250 ok", "550 5.1.1 no", "421 4.3.2 restarting"]}) as peer:
        result = send(settings(peer), [ANN, BOB, CYD, "dan@x.example"])
    kinds = [(reply.kind, reply.code) for reply in result.values()]
    assert kinds == [
        (ReplyKind.TEMPORARY, 421),
        (ReplyKind.REJECTED, 550),
        (ReplyKind.TEMPORARY, 421),
        (ReplyKind.TEMPORARY, 421),
    ]
    assert pause_after(result) is Pause.BRIEF


def test_an_unsafe_recipient_does_not_affect_the_others() -> None:
    hostile = "eve@x.example>\r\nRCPT TO:<mallory@x.example"
    with SmtpPeer() as peer:
        result = send(settings(peer), [hostile, ANN, "grüße@x.example", "bob@bücher.example"])
    assert [reply.kind for reply in result.values()] == [
        ReplyKind.REJECTED,
        ReplyKind.ACCEPTED,
        ReplyKind.REJECTED,
        ReplyKind.ACCEPTED,
    ]
    assert peer.messages[0].recipients == [ANN, "bob@xn--bcher-kva.example"]


def test_an_unsafe_sender_is_never_sent() -> None:
    with SmtpPeer() as peer, pytest.raises(UnsafeHeader):
        send_mail(settings(peer), message(), "eve@x.example>\r\nDATA", [ANN], PATIENT)
    assert peer.conversations[0].verbs == ["EHLO", "QUIT"]


def test_a_line_end_in_a_header_of_a_flask_mail_message_is_never_sent() -> None:
    injected = flask_mail.Message("s", [ANN], "text", sender=SENDER, extra_headers={"X": "1\r\nBcc: eve@x.example"})
    with SmtpPeer() as peer, pytest.raises(UnsafeHeader):
        send_mail(settings(peer), injected, SENDER, [ANN], PATIENT)
    assert peer.conversations[0].verbs == ["EHLO", "QUIT"]


# Pipelined commands (RFC 2920)


def test_commands_are_pipelined_if_offered(pipelining: bool) -> None:
    with SmtpPeer({"data": ["451 4.3.0 later", "354 go ahead"]}) as peer:
        connection = SmtpConnection(settings(peer), PATIENT)
        connection.open()
        kinds = [connection.deliver(message(), SENDER, [ANN, BOB])[ANN].kind for _ in range(2)]
        connection.close()
    assert kinds == [ReplyKind.TEMPORARY, ReplyKind.ACCEPTED]
    expected = ["MAIL", "RCPT", "RCPT", "RSET", "MAIL", "RCPT", "RCPT"] if pipelining else []
    assert peer.conversations[0].pipelined == expected


@pytest.mark.parametrize("count", [1, 50, MAX_PIPELINED_RECIPIENTS, MAX_PIPELINED_RECIPIENTS + 1])
def test_many_pipelined_replies_are_not_mixed_up(pipelining: bool, count: int) -> None:
    text = "as long as a line of a reply may be ".ljust(480, ".")
    server_replies = ["550 5.1.1 no such user", "250 ok", f"452 4.2.2 {text}"]
    recipients = [f"r{number}@x.example" for number in range(count)]
    with SmtpPeer({"rcpt": [server_replies[number % 3] for number in range(count)]}) as peer:
        replies = send(settings(peer), recipients, Timeouts())
    kinds = [ReplyKind.REJECTED, ReplyKind.ACCEPTED, ReplyKind.TEMPORARY]
    assert [reply.kind for reply in replies.values()] == [kinds[number % 3] for number in range(count)]
    assert [received.recipients for received in peer.messages] == [recipients[1::3]] * (count > 1)
    assert bool(peer.conversations[0].pipelined) is (pipelining and count <= MAX_PIPELINED_RECIPIENTS)


def test_a_server_that_waits_for_content_without_recipients_gets_only_a_dot(pipelining: bool) -> None:
    script: Script = {
        "rcpt": ["550 5.1.1 no", "250 ok"],
        "data": "354 go ahead",
        "dot": "250 2.0.0 ok",
    }
    with SmtpPeer(script) as peer:
        connection = SmtpConnection(settings(peer), PATIENT)
        connection.open()
        replies = [connection.deliver(message(), SENDER, [ANN])[ANN] for _ in range(2)]
        connection.close()
    assert [(reply.stage, reply.kind) for reply in replies] == [
        (Stage.RCPT, ReplyKind.REJECTED),
        (Stage.DATA, ReplyKind.ACCEPTED),
    ]
    contents = [received.content for received in peer.messages]
    assert contents[:-1] == [b""][:pipelining]
    assert contents[-1] == message().as_bytes()


def test_pipelined_replies_after_a_rejected_sender_are_discarded() -> None:
    with SmtpPeer({"mail": ["550 5.7.1 not you", "250 ok"]}) as peer:
        connection = SmtpConnection(settings(peer), PATIENT)
        connection.open()
        replies = [connection.deliver(message(), SENDER, [ANN, BOB])[ANN] for _ in range(2)]
        connection.close()
    assert [(reply.stage, reply.kind) for reply in replies] == [
        (Stage.MAIL, ReplyKind.SETTINGS),
        (Stage.DATA, ReplyKind.ACCEPTED),
    ]
    assert len(peer.messages) == 1


def test_a_server_that_waits_for_content_after_rejecting_the_sender_gets_none(pipelining: bool) -> None:
    """A dot alone would be a message, perhaps to the previous recipients if RSET is what the server rejected."""
    with SmtpPeer({"mail": "550 5.7.1 not you", "data": "354 go ahead"}) as peer:
        reply = send(settings(peer))[ANN]
    assert (reply.stage, reply.kind) == (Stage.MAIL, ReplyKind.SETTINGS)
    assert peer.conversations[0].verbs[-1] == ("DATA" if pipelining else "QUIT")
    assert not peer.messages


# One connection for several messages, and Flask-Mail's interface


def test_one_connection_carries_several_messages_also_after_a_failed_one(pipelining: bool) -> None:
    with SmtpPeer({"rcpt": ["550 5.1.1 no", "250 ok"]}) as peer:
        connection = SmtpConnection(settings(peer), PATIENT)
        connection.open()
        kinds = [connection.deliver(message(), SENDER, [ANN])[ANN].kind for _ in range(3)]
        connection.close()
    assert kinds == [ReplyKind.REJECTED, ReplyKind.ACCEPTED, ReplyKind.ACCEPTED]
    (conversation,) = peer.conversations
    assert conversation.verbs == [
        *["EHLO", "MAIL", "RCPT", *["DATA"][:pipelining]],
        *["RSET", "MAIL", "RCPT", "DATA"],
        *["MAIL", "RCPT", "DATA", "QUIT"],
    ]


def test_a_closed_connection_is_a_temporary_failure() -> None:
    with SmtpPeer() as peer:
        connection = SmtpConnection(settings(peer), PATIENT)
        connection.open(Deadline(Timeouts(total=1)))
    reply = connection.deliver(message(), SENDER, [ANN])[ANN]
    connection.close()
    assert (reply.stage, reply.kind, reply.text) == (
        Stage.MAIL,
        ReplyKind.TEMPORARY,
        "The mail server closed the connection.",
    )


def test_a_failed_open_reports_the_stage_and_closes() -> None:
    with SmtpPeer({"ehlo": "550 5.7.1 not you"}) as peer:
        connection = SmtpConnection(settings(peer), PATIENT)
        with pytest.raises(SmtpFailure) as failure:
            connection.open()
        assert connection.host is None
    assert failure.value.reply.stage is Stage.EHLO
    with pytest.raises(RuntimeError):
        connection.deliver(message(), SENDER, [ANN])


def test_sending_through_flask_mails_interface() -> None:
    with SmtpPeer() as peer:
        with SmtpConnection(settings(peer), PATIENT) as connection:
            message().send(connection)
        peer.script = {"rcpt": "550 5.1.1 no"}
        with (
            SmtpConnection(settings(peer), PATIENT) as connection,
            pytest.raises(RecipientsNotAccepted) as error,
        ):
            connection.send(message())
    assert peer.messages[0].recipients == [ANN]
    assert error.value.replies[ANN].kind is ReplyKind.REJECTED
