"""What the test e-mail says about mail servers that work, and that do not."""

from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy

import pytest
import trustme

from portal.errors import Refusal
from portal.mail_servers import sending, settings, testing
from portal.mail_servers.composing import Sender
from portal.mail_servers.connection import AuthMode, Budget, Encryption, SmtpSettings
from portal.mail_servers.remedies import REMEDIES
from tests.ready import entered
from tests.smtp_peer import LOCAL, Act, Script, SmtpPeer, refusing_port

FROM = Sender("pbx@acme.example", "Acme")
ME = ["admin@acme.example"]

pytestmark = pytest.mark.usefixtures("context")


def plain(port: int) -> SmtpSettings:
    return SmtpSettings("127.0.0.1", port, Encryption.NONE, AuthMode.NONE, reach=LOCAL)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "BUDGET", Budget(connect=0.3, command=0.3, total=0.5, reply=0.3))


def send_test(settings: SmtpSettings, to: list[str] = ME) -> testing.Result:
    return last(testing.send_test(settings, FROM, to, settings.host))


def tried(script: Script, to: list[str] = ME) -> testing.Result:
    with SmtpPeer(script) as peer:
        return send_test(plain(peer.port), to)


def last(talk: Iterator[testing.Result] | Refusal) -> testing.Result:
    """Return how the test e-mail went, once it is over."""
    assert not isinstance(talk, Refusal)
    *under_way, result = talk
    assert all(each.kind == "running" for each in under_way)
    return result


def test_a_working_server_gets_the_mail() -> None:
    with SmtpPeer(accounts={"mailer": "right"}) as peer:
        signs_in = SmtpSettings("127.0.0.1", peer.port, Encryption.NONE, AuthMode.AUTO, "mailer", "right", reach=LOCAL)
        result = send_test(signs_in)
        (mail,) = peer.mails
    assert result == testing.Result(
        "sent", "Connected, signed in: the mail server took the test e-mail for admin@acme.example."
    )
    message = message_from_bytes(mail.content, policy=policy.default)
    assert mail.recipients == ME
    assert message["From"] == "Acme <pbx@acme.example>"
    assert message["Subject"] == testing.words().subject


def test_one_refused_recipient_is_named() -> None:
    result = tried({"rcpt": ["250 ok", "550 5.1.1 no such user"]}, ["a@acme.example", "b@acme.example"])
    assert result.kind == "partial"
    assert result.sentence == "The test e-mail was taken for 1 of 2, but not for b@acme.example."
    assert "no such mailbox" in result.advice
    assert result.reply == "The mail server said: 550 5.1.1 no such user"


@pytest.mark.parametrize(
    ("script", "sentence", "said"),
    [
        ({"greeting": "554 no"}, "Connected, but the mail server did not say hello.", "554"),
        ({"mail": "553 5.1.8 no"}, "Connected, but the sender was refused.", "553"),
        ({"rcpt": "550 5.1.1 no"}, "Connected, but a recipient was refused.", "550"),
        ({"dot": "554 5.7.1 no"}, "Connected, but the mail was refused.", "554"),
    ],
)
def test_it_tells_how_far_it_came(script: Script, sentence: str, said: str) -> None:
    result = tried(script)
    assert result.kind == "failed"
    assert result.sentence == sentence
    assert result.advice
    assert said in result.reply


def test_a_wrong_password_is_named() -> None:
    with SmtpPeer(accounts={"mailer": "right"}) as peer:
        settings_ = replace(plain(peer.port), auth_mode=AuthMode.AUTO, username="mailer", password="wr0ng")
        result = send_test(settings_)
    assert result.sentence == "Connected, but sign-in failed."
    assert "did not accept user name and password" in result.advice
    assert "wr0ng" not in repr(result)


def test_a_certificate_of_an_unknown_authority_is_named(certificate: trustme.LeafCert) -> None:
    with SmtpPeer(certificate=certificate) as peer:
        result = send_test(replace(plain(peer.port), encryption=Encryption.STARTTLS))
        assert not peer.mails
    assert result.sentence == "Connected, but encryption was not agreed on."
    assert "authority" in result.advice


def test_a_port_where_nothing_listens() -> None:
    with refusing_port() as port:
        result = send_test(plain(port))
    assert result.sentence == "No connection was made."
    assert "no mail server listens on this port" in result.advice


@pytest.mark.usefixtures("quick")
def test_a_server_that_never_answers_costs_no_more_than_the_budget() -> None:
    result = tried({"ehlo": Act.SILENCE})
    assert result.sentence == "Connected, but the mail server did not say hello."
    assert "in time" in result.reply


@pytest.mark.usefixtures("quick")
def test_a_server_that_does_not_confirm_may_have_sent_it() -> None:
    result = tried({"dot": Act.SILENCE})
    assert result.kind == "failed"
    assert result.sentence == "Connected, but the mail server did not confirm the test e-mail."
    assert "may have been sent" in result.advice


def test_a_saved_password_is_not_sent_to_another_server() -> None:
    with SmtpPeer(accounts={"mailer": "right"}) as saved, SmtpPeer(accounts={"mailer": "right"}) as other:
        signs_in = {"auth_mode": AuthMode.PLAIN, "username": "mailer"}
        settings.save(None, entered(saved.port, **signs_in, password="right"))
        unchanged = last(testing.send_entered(None, entered(saved.port, **signs_in), ME))
        elsewhere = testing.send_entered(None, entered(other.port, **signs_in), ME)
        assert unchanged.kind == "sent"
        assert isinstance(elsewhere, Refusal)
        assert elsewhere.field == "password"
        assert not other.conversations


def test_advice_promises_nothing_that_a_test_does_not_do() -> None:
    for remedy in REMEDIES:
        assert "tries again by itself" not in (remedy.by_hand or remedy.sentence)


def test_one_test_of_a_tenant_at_a_time() -> None:
    with SmtpPeer() as peer:
        with sending.the_only_one(("test", None)):
            assert "still on its way" in last(testing.send_entered(None, entered(peer.port), ME)).sentence
            assert not peer.conversations
        result = last(testing.send_entered(None, entered(peer.port), ME))
    assert result.kind == "sent"
