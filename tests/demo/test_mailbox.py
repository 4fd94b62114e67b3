from pathlib import Path

from portal.demo.mailbox import Mailbox

MAIL = b"Subject: =?utf-8?q?Caf=C3=A9?=\r\nTo: a@acme.example\r\n\r\nText\r\n"


def test_it_reads_stored_messages(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path / "mail")
    mailbox.add(MAIL)
    (mail,) = mailbox.newest(10)
    assert (mail.header("Subject"), mail.header("To"), mail.header("Reply-To")) == ("Café", "a@acme.example", "")
    assert (mail.body("plain"), mail.body("html"), mail.source) == ("Text\r\n", None, MAIL)


def test_it_keeps_the_newest(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path, capacity=3)
    for number in range(5):
        mailbox.add(b"Subject: %d\r\n\r\n" % number)
    assert [mail.header("Subject") for mail in mailbox.newest(10)] == ["4", "3", "2"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_deleted_email_is_none(tmp_path: Path) -> None:
    assert Mailbox(tmp_path).find(1) is None
    assert Mailbox(tmp_path / "not made yet").newest(10) == []
