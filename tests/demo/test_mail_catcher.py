import smtplib
import socket
from pathlib import Path

from portal.demo.mail_catcher import run_catcher
from portal.demo.mailbox import Mailbox


def test_it_stores_messages_and_forwards_none(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    with run_catcher(mailbox, 0) as port, smtplib.SMTP("127.0.0.1", port) as client:
        client.sendmail("a@x.example", ["b@x.example"], b"Subject: Captured\r\n\r\nText\r\n")
    assert [mail.header("Subject") for mail in mailbox.newest(10)] == ["Captured"]


def test_it_uses_a_free_port_if_the_requested_one_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        wanted = busy.getsockname()[1]
        with run_catcher(Mailbox(tmp_path), wanted) as port, smtplib.SMTP("127.0.0.1", port) as client:
            assert port != wanted
            assert client.noop()[0] == 250
