import smtplib
import socket
from pathlib import Path

from portal.demo.catcher import catching
from portal.demo.mailbox import Mailbox


def test_it_keeps_mail_and_sends_nothing_on(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    with catching(mailbox, 0) as port, smtplib.SMTP("127.0.0.1", port) as client:
        client.sendmail("a@x.example", ["b@x.example"], b"Subject: Caught\r\n\r\nText\r\n")
    assert [mail.header("Subject") for mail in mailbox.mails(10)] == ["Caught"]


def test_it_takes_another_port_where_the_wanted_one_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        wanted = busy.getsockname()[1]
        with catching(Mailbox(tmp_path), wanted) as port, smtplib.SMTP("127.0.0.1", port) as client:
            assert port != wanted
            assert client.noop()[0] == 250
