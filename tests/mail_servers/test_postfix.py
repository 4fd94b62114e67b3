"""Against a real mail server that is not written in Python: Debian's Postfix with STARTTLS and SASL, on loopback.

By hand, as root: `apt-get install postfix sasl2-bin libsasl2-modules`, then
`pytest tests/mail_servers/test_postfix.py`. Elsewhere these tests are skipped and say why, except where CI=true: there
they fail. `python -m tests.postfix` runs the same Postfix for a look with the portal in a browser.
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

from portal.mail_servers.composing import Sender, Words, compose, new_message_id
from portal.mail_servers.connection import AuthMode, Encryption, SendResult, SmtpSettings, send
from portal.mail_servers.outcome import Kind, Pause, Stage
from tests import postfix as real
from tests.postfix import PASSWORD, USERNAME, Postfix
from tests.smtp_peer import LOCAL

SENDER = "pbx@portal.example"
ANN, BOB, NOBODY = "ann@x.example", "bob@x.example", "nobody@x.example"


@pytest.fixture(scope="module")
def postfix(certificate: trustme.LeafCert) -> Iterator[Postfix]:
    problem = real.missing()
    if problem:
        assert os.environ.get("CI") != "true", problem
        pytest.skip(problem)
    with real.running(certificate) as running:
        yield running


def message(message_id: str) -> flask_mail.Message:
    words = Words("Ein Anruf ging verloren: Grüße", "Grüße\n.\n", "<p>Grüße</p>\n")
    return compose(words, Sender(SENDER, "PBX"), [ANN], message_id=message_id, date=datetime.now(UTC))


def send_by(
    postfix: Postfix,
    ca_file: Path | None,
    *recipients: str,
    auth_mode: AuthMode = AuthMode.AUTO,
    password: str = PASSWORD,
    message_id: str = "<1@portal.example>",
) -> SendResult:
    settings = SmtpSettings("127.0.0.1", postfix.port, Encryption.STARTTLS, auth_mode, USERNAME, password, reach=LOCAL)
    return send(settings, message(message_id), SENDER, recipients, ca_file=ca_file)


@pytest.mark.parametrize("auth_mode", [AuthMode.AUTO, AuthMode.PLAIN, AuthMode.LOGIN])
def test_a_mail_lands_in_the_mailbox(postfix: Postfix, ca_file: Path, auth_mode: AuthMode) -> None:
    message_id = new_message_id(SENDER)
    result = send_by(postfix, ca_file, BOB, auth_mode=auth_mode, message_id=message_id)
    assert (result.outcomes[BOB].kind, result.outcomes[BOB].code, result.pause) == (Kind.SENT, 250, Pause.NONE)
    assert "queued as" in result.outcomes[BOB].text
    (mail,) = postfix.take_mails(BOB)
    landed = email.message_from_bytes(mail, policy=default)
    assert landed["Message-ID"] == message_id
    assert landed["Subject"] == "Ein Anruf ging verloren: Grüße"
    assert "with ESMTPSA" in landed["Received"]
    text = landed.get_body(("plain",))
    assert text is not None
    assert text.get_content() == "Grüße\n.\n"


def test_a_wrong_password_is_a_matter_of_settings(postfix: Postfix, ca_file: Path) -> None:
    result = send_by(postfix, ca_file, ANN, password="wrong")
    outcome = result.outcomes[ANN]
    assert (outcome.kind, outcome.stage, outcome.code, outcome.enhanced_code) == (
        Kind.SETTINGS,
        Stage.AUTH,
        535,
        "5.7.8",
    )
    assert result.pause is Pause.UNTIL_SAVED


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(postfix: Postfix) -> None:
    outcome = send_by(postfix, None, ANN).outcomes[ANN]
    assert (outcome.kind, outcome.stage) == (Kind.SETTINGS, Stage.TLS)
    assert "certificate is not accepted" in outcome.text


def test_one_refused_recipient_does_not_keep_the_others(postfix: Postfix, ca_file: Path) -> None:
    outcomes = send_by(postfix, ca_file, NOBODY, ANN).outcomes
    assert (outcomes[NOBODY].kind, outcomes[NOBODY].stage, outcomes[NOBODY].code, outcomes[NOBODY].enhanced_code) == (
        Kind.REFUSED,
        Stage.RCPT,
        550,
        "5.1.1",
    )
    assert outcomes[ANN].kind is Kind.SENT
    assert len(postfix.take_mails(ANN)) == 1


def test_who_does_not_sign_in_is_refused(postfix: Postfix, ca_file: Path) -> None:
    outcome = send_by(postfix, ca_file, ANN, auth_mode=AuthMode.NONE).outcomes[ANN]
    assert (outcome.kind, outcome.stage, outcome.code) == (Kind.REFUSED, Stage.RCPT, 554)
