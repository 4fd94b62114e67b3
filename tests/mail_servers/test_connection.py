"""One connection to a mail server: what is said, what is heard, and what becomes of each recipient."""

import time

import flask_mail
import pytest

from portal.mail_servers.composing import UnsafeHeader
from portal.mail_servers.connection import AuthMode, Budget, Connection, Encryption, NotSent, SendResult, SmtpSettings
from portal.mail_servers.connection import send as send_mail
from portal.mail_servers.dialling import Deadline
from portal.mail_servers.outcome import Fault, Kind, Outcome, Pause, Stage
from portal.mail_servers.smtp import RECIPIENTS_AHEAD
from tests.mail_servers.one_mail import (
    ANN,
    BOB,
    CYD,
    SENDER,
    SHORT,
    message,
    outcome_of,
    pipelining,
    send,
    settings,
)
from tests.smtp_peer import LOCAL, Act, Deaf, Script, Slowly, SmtpPeer, refusing_port, unstuffed

__all__ = ["pipelining"]


# A mail that is accepted


def test_a_mail_is_accepted_and_arrives_as_it_was_written() -> None:
    with SmtpPeer() as peer:
        result = send(settings(peer), [ANN, BOB])
    assert result == SendResult(
        dict.fromkeys([ANN, BOB], Outcome(Kind.SENT, Stage.DATA, 250, "2.0.0", "queued as 4711")), Pause.NONE
    )
    (mail,) = peer.mails
    assert (mail.sender, mail.recipients) == (SENDER, [ANN, BOB])
    assert unstuffed(mail.content) == message().as_bytes()
    assert peer.conversations[0].verbs == ["EHLO", "MAIL", "RCPT", "RCPT", "DATA", "QUIT"]


def test_a_line_end_of_another_kind_cannot_end_the_mail() -> None:
    class Raw(flask_mail.Message):
        def as_bytes(self) -> bytes:
            return b".first\n.\nMAIL FROM:<x@y>\r.\rlast"

    with SmtpPeer() as peer:
        send_mail(settings(peer), Raw("s", [ANN], sender=SENDER), SENDER, [ANN], SHORT)
    assert peer.mails[0].content == b"..first\r\n..\r\nMAIL FROM:<x@y>\r\n..\r\nlast\r\n"


def test_our_name_is_the_given_one_or_our_address() -> None:
    with SmtpPeer() as peer:
        send(settings(peer))
        send_mail(settings(peer), message(), SENDER, [ANN], SHORT, helo_name="portal.example")
    assert [conversation.commands[0].lower() for conversation in peer.conversations] == [
        "ehlo [127.0.0.1]",
        "ehlo portal.example",
    ]


# Replies that test_matrix.py does not have


@pytest.mark.parametrize("step", ["ehlo", "mail", "rcpt", "data", "dot"])
def test_a_reply_out_of_turn_is_no_success(step: str) -> None:
    wrong = "250 fine" if step == "data" else "354 go on"
    outcome = outcome_of({step: wrong})
    assert outcome.kind is (Kind.UNKNOWN if step == "dot" else Kind.TEMPORARY)
    assert outcome.text == "The mail server answered out of turn."


def test_a_reply_to_nothing_is_not_taken_for_the_next_one() -> None:
    with SmtpPeer({"data": "354 go ahead\n250 2.0.0 accepted already"}) as peer:
        assert send(settings(peer)).outcomes[ANN].kind is Kind.TEMPORARY
    assert not peer.mails


def test_an_endless_reply_ends() -> None:
    assert outcome_of({"ehlo": "250-on and on\n" * 9000 + "250 end"}).text == "The reply is not SMTP."
    assert outcome_of({"ehlo": "250 " + "x" * 200_000}).text == "The reply is not SMTP."


def test_a_last_word_before_hanging_up_is_heard() -> None:
    assert outcome_of({"greeting": "220 peer.test\n421 4.3.2 closing"}).code == 421


def test_a_server_slow_at_every_step_does_not_hold_us() -> None:
    slow = {step: Slowly("250 ok", 0.04) for step in ("ehlo", "mail", "rcpt")}
    began = time.monotonic()
    assert outcome_of({"greeting": Slowly("220 ok", 0.04), **slow}).kind is Kind.TEMPORARY
    assert SHORT.total - 0.1 < time.monotonic() - began < SHORT.total + 0.3


def test_a_server_that_takes_in_nothing_does_not_hold_us() -> None:
    class Huge(flask_mail.Message):
        def as_bytes(self) -> bytes:
            return b"x" * 16_000_000  # more than the buffers on the way hold

    began = time.monotonic()
    with SmtpPeer({"data": Deaf("354 go ahead")}) as peer:
        result = send_mail(settings(peer), Huge(sender=SENDER), SENDER, [ANN], SHORT)
    assert result.outcomes[ANN].kind is Kind.TEMPORARY
    assert time.monotonic() - began < SHORT.total + 0.3


def test_the_reply_to_the_final_dot_has_a_time_of_its_own() -> None:
    budget = Budget(connect=0.3, command=0.3, total=0.3, reply=2)
    with SmtpPeer({"dot": Slowly("250 2.0.0 late", 0.03)}) as peer:
        assert send(settings(peer), budget=budget).outcomes[ANN].kind is Kind.SENT


def test_nothing_listens() -> None:
    with refusing_port() as port:
        result = send(SmtpSettings("127.0.0.1", port, Encryption.NONE, AuthMode.NONE, reach=LOCAL))
    assert (result.outcomes[ANN].stage, result.outcomes[ANN].kind) == (Stage.CONNECT, Kind.TEMPORARY)
    assert result.pause is Pause.BRIEF


def test_a_reset_in_place_of_the_greeting() -> None:
    outcome = outcome_of({"greeting": Act.RESET})
    assert outcome.kind is Kind.TEMPORARY
    assert outcome.stage in (Stage.CONNECT, Stage.GREETING)  # whichever it meets


# Recipients


def test_each_recipient_has_an_outcome_of_its_own() -> None:
    with SmtpPeer({"rcpt": ["250 ok", "550 5.1.1 no such user", "451 4.7.1 greylisted"]}) as peer:
        result = send(settings(peer), [ANN, BOB, CYD])
    kinds = {recipient: outcome.kind for recipient, outcome in result.outcomes.items()}
    assert kinds == {ANN: Kind.SENT, BOB: Kind.REFUSED, CYD: Kind.TEMPORARY}
    assert list(result.outcomes) == [ANN, BOB, CYD]
    assert peer.mails[0].recipients == [ANN]


def test_no_content_is_sent_where_every_recipient_is_refused(pipelining: bool) -> None:
    with SmtpPeer({"rcpt": "550 5.1.1 no such user"}) as peer:
        result = send(settings(peer), [ANN, BOB])
    assert {outcome.kind for outcome in result.outcomes.values()} == {Kind.REFUSED}
    assert peer.conversations[0].verbs == ["EHLO", "MAIL", "RCPT", "RCPT", *["DATA"][:pipelining], "QUIT"]


def test_421_among_the_recipients_leaves_all_but_the_refused_open() -> None:
    with SmtpPeer({"rcpt": ["250 ok", "550 5.1.1 no", "421 4.3.2 restarting"]}) as peer:
        result = send(settings(peer), [ANN, BOB, CYD, "dan@x.example"])
    kinds = [(outcome.kind, outcome.code) for outcome in result.outcomes.values()]
    assert kinds == [(Kind.TEMPORARY, 421), (Kind.REFUSED, 550), (Kind.TEMPORARY, 421), (Kind.TEMPORARY, 421)]
    assert result.pause is Pause.BRIEF


def test_an_address_that_cannot_be_written_does_not_keep_the_others() -> None:
    hostile = "eve@x.example>\r\nRCPT TO:<mallory@x.example"
    with SmtpPeer() as peer:
        result = send(settings(peer), [hostile, ANN, "grüße@x.example", "bob@bücher.example"])
    assert [outcome.kind for outcome in result.outcomes.values()] == [Kind.REFUSED, Kind.SENT, Kind.REFUSED, Kind.SENT]
    assert peer.mails[0].recipients == [ANN, "bob@xn--bcher-kva.example"]


def test_a_sender_that_cannot_be_written_is_never_sent() -> None:
    with SmtpPeer() as peer, pytest.raises(UnsafeHeader):
        send_mail(settings(peer), message(), "eve@x.example>\r\nDATA", [ANN], SHORT)
    assert peer.conversations[0].verbs == ["EHLO", "QUIT"]


def test_a_line_end_in_a_header_of_any_flask_mail_message_is_never_sent() -> None:
    injected = flask_mail.Message("s", [ANN], "text", sender=SENDER, extra_headers={"X": "1\r\nBcc: eve@x.example"})
    with SmtpPeer() as peer, pytest.raises(UnsafeHeader):
        send_mail(settings(peer), injected, SENDER, [ANN], SHORT)
    assert peer.conversations[0].verbs == ["EHLO", "QUIT"]


# Commands said ahead (RFC 2920)


def test_what_needs_no_reply_first_is_said_at_once(pipelining: bool) -> None:
    with SmtpPeer({"data": ["451 4.3.0 later", "354 go ahead"]}) as peer:
        connection = Connection(settings(peer), SHORT)
        connection.open()
        kinds = [connection.deliver(message(), SENDER, [ANN, BOB])[ANN].kind for _ in range(2)]
        connection.close()
    assert kinds == [Kind.TEMPORARY, Kind.SENT]
    expected = ["MAIL", "RCPT", "RCPT", "RSET", "MAIL", "RCPT", "RCPT"] if pipelining else []
    assert peer.conversations[0].ahead == expected


@pytest.mark.parametrize("count", [1, 50, RECIPIENTS_AHEAD, RECIPIENTS_AHEAD + 1])
def test_the_outcomes_of_many_are_not_mixed_up(pipelining: bool, count: int) -> None:
    words = "as long as a line of a reply may be ".ljust(480, ".")
    replies = ["550 5.1.1 no such user", "250 ok", f"452 4.2.2 {words}"]
    recipients = [f"r{number}@x.example" for number in range(count)]
    with SmtpPeer({"rcpt": [replies[number % 3] for number in range(count)]}) as peer:
        outcomes = send(settings(peer), recipients, Budget()).outcomes
    kinds = [Kind.REFUSED, Kind.SENT, Kind.TEMPORARY]
    assert [outcome.kind for outcome in outcomes.values()] == [kinds[number % 3] for number in range(count)]
    assert [mail.recipients for mail in peer.mails] == [recipients[1::3]] * (count > 1)
    assert bool(peer.conversations[0].ahead) is (pipelining and count <= RECIPIENTS_AHEAD)


def test_a_server_that_wants_a_mail_for_nobody_gets_a_dot_alone(pipelining: bool) -> None:
    script: Script = {"rcpt": ["550 5.1.1 no", "250 ok"], "data": "354 go ahead", "dot": "250 2.0.0 taken, for nobody"}
    with SmtpPeer(script) as peer:
        connection = Connection(settings(peer), SHORT)
        connection.open()
        outcomes = [connection.deliver(message(), SENDER, [ANN])[ANN] for _ in range(2)]
        connection.close()
    assert [(outcome.stage, outcome.kind) for outcome in outcomes] == [
        (Stage.RCPT, Kind.REFUSED),
        (Stage.DATA, Kind.SENT),
    ]
    contents = [mail.content for mail in peer.mails]
    assert contents[:-1] == [b""][:pipelining]
    assert unstuffed(contents[-1]) == message().as_bytes()


def test_after_a_refused_mail_the_replies_to_the_rest_are_not_taken_for_others() -> None:
    with SmtpPeer({"mail": ["550 5.7.1 not you", "250 ok"]}) as peer:
        connection = Connection(settings(peer), SHORT)
        connection.open()
        outcomes = [connection.deliver(message(), SENDER, [ANN, BOB])[ANN] for _ in range(2)]
        connection.close()
    assert [(outcome.stage, outcome.kind) for outcome in outcomes] == [
        (Stage.MAIL, Kind.SETTINGS),
        (Stage.DATA, Kind.SENT),
    ]
    assert len(peer.mails) == 1


def test_a_server_that_waits_for_a_mail_that_it_refused_gets_none(pipelining: bool) -> None:
    """A dot alone would be a mail: perhaps to those of the mail before, if RSET is what it refused."""
    with SmtpPeer({"mail": "550 5.7.1 not you", "data": "354 go ahead"}) as peer:
        outcome = send(settings(peer)).outcomes[ANN]
    assert (outcome.stage, outcome.kind) == (Stage.MAIL, Kind.SETTINGS)
    assert peer.conversations[0].verbs[-1] == ("DATA" if pipelining else "QUIT")
    assert not peer.mails


# One connection, several mails, and Flask-Mail's way


def test_one_connection_carries_several_mails_also_after_one_that_ended_half_way(pipelining: bool) -> None:
    with SmtpPeer({"rcpt": ["550 5.1.1 no", "250 ok"]}) as peer:
        connection = Connection(settings(peer), SHORT)
        connection.open()
        kinds = [connection.deliver(message(), SENDER, [ANN])[ANN].kind for _ in range(3)]
        connection.close()
    assert kinds == [Kind.REFUSED, Kind.SENT, Kind.SENT]
    (conversation,) = peer.conversations
    assert conversation.verbs == [
        *["EHLO", "MAIL", "RCPT", *["DATA"][:pipelining]],
        *["RSET", "MAIL", "RCPT", "DATA"],
        *["MAIL", "RCPT", "DATA", "QUIT"],
    ]


def test_a_kept_connection_that_was_closed_meanwhile_is_a_temporary_fault() -> None:
    with SmtpPeer() as peer:
        connection = Connection(settings(peer), SHORT)
        connection.open(Deadline(1))
    outcome = connection.deliver(message(), SENDER, [ANN])[ANN]
    connection.close()
    assert (outcome.stage, outcome.kind, outcome.text) == (
        Stage.MAIL,
        Kind.TEMPORARY,
        "The mail server closed the connection.",
    )


def test_opening_says_what_went_wrong_and_leaves_nothing_open() -> None:
    with SmtpPeer({"ehlo": "550 5.7.1 not you"}) as peer:
        connection = Connection(settings(peer), SHORT)
        with pytest.raises(Fault) as fault:
            connection.open()
        assert connection.host is None
    assert fault.value.outcome.stage is Stage.EHLO
    with pytest.raises(RuntimeError):
        connection.deliver(message(), SENDER, [ANN])


def test_flask_mails_own_way_of_sending() -> None:
    with SmtpPeer() as peer:
        with Connection(settings(peer), SHORT) as connection:
            message().send(connection)
        peer.script = {"rcpt": "550 5.1.1 no"}
        with Connection(settings(peer), SHORT) as connection, pytest.raises(NotSent) as refused:
            connection.send(message())
    assert peer.mails[0].recipients == [ANN]
    assert refused.value.outcomes[ANN].kind is Kind.REFUSED
