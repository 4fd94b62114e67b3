"""The SMTP client with a real mail server: Debian's Postfix with STARTTLS and SASL, on loopback.

As root: `apt-get install postfix sasl2-bin libsasl2-modules`, then `pytest tests/mail_servers/smtp/test_postfix.py`.
Without Postfix these tests are skipped with the reason; with CI=true they fail. `python -m tests.postfix` runs the same
Postfix to try with the portal in a browser.
"""

import email
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from email.policy import default
from pathlib import Path

import flask_mail
import pytest
import trustme

from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings, send
from portal.mail_servers.smtp.mime import MessageContent, MimeMessage, Sender, new_message_id
from portal.mail_servers.smtp.outcome import Pause, ReplyKind, SmtpReply, Stage, advice_for
from tests import postfix as postfix_server
from tests.mail_servers.example_message import pause_after
from tests.postfix import PASSWORD, USERNAME, Postfix
from tests.smtp_peer import LOCAL

pytestmark = pytest.mark.slow

SENDER = "pbx@portal.example"
ANN, BOB, NOBODY = "ann@x.example", "bob@x.example", "nobody@x.example"


@pytest.fixture(scope="module")
def postfix(certificate: trustme.LeafCert) -> Iterator[Postfix]:
    problem = postfix_server.missing()
    if problem:
        assert os.environ.get("CI") != "true", problem
        pytest.skip(problem)
    with postfix_server.running(certificate) as running:
        yield running


def message(message_id: str) -> flask_mail.Message:
    content = MessageContent.of("Ein Anruf ging verloren: Grüße", "Grüße\n.\n", "<p>Grüße</p>\n")
    return MimeMessage(content, Sender(SENDER, "PBX"), [ANN], message_id=message_id, date=datetime.now(UTC))


def send_through(
    postfix: Postfix,
    ca_file: Path | None,
    *recipients: str,
    auth_mode: AuthMode = AuthMode.AUTO,
    password: str = PASSWORD,
    message_id: str = "<1@portal.example>",
    helo_name: str | None = None,
) -> dict[str, SmtpReply]:
    settings = SmtpSettings(
        "127.0.0.1",
        postfix.port,
        Encryption.STARTTLS,
        auth_mode,
        USERNAME,
        password,
        network_policy=LOCAL,
        helo_name=helo_name,
        ca_file=ca_file,
    )
    return send(settings, message(message_id), SENDER, recipients)


@pytest.mark.parametrize("auth_mode", [AuthMode.AUTO, AuthMode.PLAIN, AuthMode.LOGIN])
def test_a_message_arrives_in_the_mailbox(postfix: Postfix, ca_file: Path, auth_mode: AuthMode) -> None:
    message_id = new_message_id(SENDER)
    result = send_through(postfix, ca_file, BOB, auth_mode=auth_mode, message_id=message_id)
    assert (result[BOB].kind, result[BOB].code, pause_after(result)) == (ReplyKind.ACCEPTED, 250, Pause.NONE)
    assert "queued as" in result[BOB].text
    (received,) = postfix.take_messages(BOB)
    arrived = email.message_from_bytes(received, policy=default)
    assert arrived["Message-ID"] == message_id
    assert arrived["Subject"] == "Ein Anruf ging verloren: Grüße"
    assert "with ESMTPSA" in arrived["Received"]
    text = arrived.get_body(("plain",))
    assert text is not None
    assert text.get_content() == "Grüße\n.\n"


def test_a_wrong_password_is_a_settings_failure(postfix: Postfix, ca_file: Path) -> None:
    result = send_through(postfix, ca_file, ANN, password="wrong")
    reply = result[ANN]
    assert (reply.kind, reply.stage, reply.code, reply.enhanced_code) == (
        ReplyKind.SETTINGS,
        Stage.AUTH,
        535,
        "5.7.8",
    )
    assert pause_after(result) is Pause.UNTIL_SAVED


def test_a_certificate_of_an_unknown_authority_is_rejected(postfix: Postfix) -> None:
    reply = send_through(postfix, None, ANN)[ANN]
    assert (reply.kind, reply.stage) == (ReplyKind.SETTINGS, Stage.TLS)
    assert "certificate is not accepted" in reply.text


def test_a_rejected_recipient_does_not_affect_the_others(postfix: Postfix, ca_file: Path) -> None:
    replies = send_through(postfix, ca_file, NOBODY, ANN)
    assert (replies[NOBODY].kind, replies[NOBODY].stage, replies[NOBODY].code, replies[NOBODY].enhanced_code) == (
        ReplyKind.REJECTED,
        Stage.RCPT,
        550,
        "5.1.1",
    )
    assert replies[ANN].kind is ReplyKind.ACCEPTED
    assert len(postfix.take_messages(ANN)) == 1


def test_a_client_that_does_not_sign_in_is_rejected(postfix: Postfix, ca_file: Path) -> None:
    reply = send_through(postfix, ca_file, ANN, auth_mode=AuthMode.NONE)[ANN]
    assert (reply.kind, reply.stage, reply.code) == (ReplyKind.REJECTED, Stage.RCPT, 554)


@pytest.mark.parametrize("name", [None, "portal.example", "[192.0.2.1]", "[IPv6:2001:db8::7]"])
def test_a_full_name_or_an_address_literal_is_accepted(postfix: Postfix, ca_file: Path, name: str | None) -> None:
    assert send_through(postfix, ca_file, ANN, helo_name=name)[ANN].kind is ReplyKind.ACCEPTED
    postfix.take_messages(ANN)


@pytest.mark.parametrize("name", ["portal", "127.0.0.1", "localhost", "portal..example", "-portal.example"])
def test_another_name_is_a_settings_failure(postfix: Postfix, ca_file: Path, name: str) -> None:
    result = send_through(postfix, ca_file, ANN, helo_name=name)
    reply = result[ANN]
    assert (reply.kind, reply.stage, pause_after(result)) == (ReplyKind.SETTINGS, Stage.RCPT, Pause.NONE)
    assert reply.code in {501, 504}
    assert "Helo command rejected" in reply.text
    assert "SMTP_HELO_NAME" in advice_for(reply)
