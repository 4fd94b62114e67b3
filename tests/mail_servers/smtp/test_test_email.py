"""The result of a test email, for mail servers that work and that do not."""

from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy

import pytest
import trustme

from portal.errors import Refusal
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp import pool, test_email
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.mime import Sender
from portal.mail_servers.smtp.outcome import Stage
from tests.mail_servers.example_message import PATIENT, SHORT, short_at
from tests.smtp_peer import LOCAL, Fault, Script, SmtpPeer, closed_port
from tests.tenant_fixtures import entered

SENDER = Sender("pbx@acme.example", "Acme")
TO = ["admin@acme.example"]

pytestmark = pytest.mark.usefixtures("context")


def plain(port: int) -> SmtpSettings:
    return SmtpSettings("127.0.0.1", port, Encryption.NONE, AuthMode.NONE, network_policy=LOCAL)


def send_test(settings: SmtpSettings, to: list[str] = TO) -> test_email.SendTestResult:
    return last(test_email.send_test(settings, SENDER, to, settings.host))


def send_to_script(script: Script, to: list[str] = TO) -> test_email.SendTestResult:
    with SmtpPeer(script) as peer:
        return send_test(plain(peer.port), to)


def last(results: Iterator[test_email.SendTestResult] | Refusal) -> test_email.SendTestResult:
    """Return the final result; all results before are progress."""
    assert not isinstance(results, Refusal)
    *progress, result = results
    assert all(each.state == "running" for each in progress)
    return result


def test_a_working_server_gets_the_test_email() -> None:
    with SmtpPeer(accounts={"mailer": "right"}) as peer:
        signs_in = SmtpSettings(
            "127.0.0.1", peer.port, Encryption.NONE, AuthMode.AUTO, "mailer", "right", network_policy=LOCAL
        )
        result = send_test(signs_in)
        (received,) = peer.messages
    assert result == test_email.SendTestResult(
        "sent", "Connected, signed in: the mail server accepted the test email for admin@acme.example."
    )
    message = message_from_bytes(received.content, policy=policy.default)
    assert received.recipients == TO
    assert message["From"] == "Acme <pbx@acme.example>"
    assert message["Subject"] == test_email.test_message().subject


def test_a_rejected_recipient_is_named() -> None:
    result = send_to_script({"rcpt": ["250 ok", "550 5.1.1 no such user"]}, ["a@acme.example", "b@acme.example"])
    assert result.state == "partial"
    assert result.headline == "The test email was accepted for 1 of 2 recipients, but not for b@acme.example."
    assert "mailbox does not exist" in result.advice
    assert result.reply == "The mail server replied: 550 5.1.1 no such user"


@pytest.mark.parametrize(
    ("script", "headline", "quote"),
    [
        ({"greeting": "554 no"}, "Connected, but no SMTP session was started.", "554"),
        ({"mail": "553 5.1.8 no"}, "Connected, but the sender was rejected.", "553"),
        ({"rcpt": "550 5.1.1 no"}, "Connected, but a recipient was rejected.", "550"),
        ({"dot": "554 5.7.1 no"}, "Connected, but the email was rejected.", "554"),
    ],
)
def test_the_headline_says_which_stage_failed(script: Script, headline: str, quote: str) -> None:
    result = send_to_script(script)
    assert result.state == "failed"
    assert result.headline == headline
    assert result.advice
    assert quote in result.reply


def test_a_wrong_password_is_named() -> None:
    with SmtpPeer(accounts={"mailer": "right"}) as peer:
        signs_in = replace(plain(peer.port), auth_mode=AuthMode.AUTO, username="mailer", password="wr0ng")
        result = send_test(signs_in)
    assert result.headline == "Connected, but the username or the password was rejected."
    assert "rejected the username or password" in result.advice
    assert "wr0ng" not in repr(result)


def test_a_certificate_of_an_unknown_authority_is_named(certificate: trustme.LeafCert) -> None:
    with SmtpPeer(certificate=certificate) as peer:
        result = send_test(replace(plain(peer.port), encryption=Encryption.STARTTLS))
        assert not peer.messages
    assert result.headline == "The certificate is not trusted."
    assert "authority" in result.advice
    assert "MAIL_CA_FILE" in result.advice


def test_a_port_where_nothing_listens() -> None:
    with closed_port() as port:
        result = send_test(plain(port))
    assert result.headline == "The connection was refused."
    assert "no mail server listens on this port" in result.advice


def test_a_silent_server_is_limited_by_the_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_at(Stage.EHLO) as timeouts:
        monkeypatch.setattr(test_email, "TIMEOUTS", timeouts)
        result = send_to_script({"ehlo": Fault.SILENCE})
    assert result.headline == "Connected, but no SMTP session was started."
    assert "in time" in result.reply


def test_a_message_without_confirmation_may_have_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_email, "TIMEOUTS", replace(PATIENT, reply=SHORT))
    result = send_to_script({"dot": Fault.SILENCE})
    assert result.state == "failed"
    assert result.headline == "Connected, but the mail server did not confirm the test email."
    assert "may have been sent" in result.advice


def test_a_saved_password_is_not_sent_to_another_server() -> None:
    with SmtpPeer(accounts={"mailer": "right"}) as saved, SmtpPeer(accounts={"mailer": "right"}) as other:
        signs_in = {"auth_mode": AuthMode.PLAIN, "username": "mailer"}
        mail_server_service.save(None, entered(saved.port, **signs_in, password="right"))
        unchanged = last(test_email.send_with_entered_settings(None, entered(saved.port, **signs_in), TO))
        elsewhere = test_email.send_with_entered_settings(None, entered(other.port, **signs_in), TO)
        assert unchanged.state == "sent"
        assert isinstance(elsewhere, Refusal)
        assert elsewhere.field == "password"
        assert not other.conversations


def test_one_test_of_a_tenant_at_a_time() -> None:
    with SmtpPeer() as peer:
        with pool.current().slots.acquire(("test", None), exclusive=True):
            assert (
                "still being sent" in last(test_email.send_with_entered_settings(None, entered(peer.port), TO)).headline
            )
            assert not peer.conversations
        result = last(test_email.send_with_entered_settings(None, entered(peer.port), TO))
    assert result.state == "sent"
