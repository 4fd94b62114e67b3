"""A real Postfix on loopback in its own directory: STARTTLS, strict about HELO, sign-in with Cyrus SASL, Maildir.

To run it by hand as root on Debian: `apt-get install postfix sasl2-bin libsasl2-modules`, then `python -m
tests.postfix`, and enter what it prints in the portal's mail server form. A Postfix that already runs is not affected.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.ports import free_port

USERNAME, PASSWORD = "portal", "Pässwörd 密码"
MAILBOXES = ("ann@x.example", "bob@x.example")
REALM = "mail.portal.test"
PROGRAMS = ("postfix", "postconf", "saslpasswd2")
START_TIMEOUT = 20  # seconds
NOBODY = 65534

MAIN = """\
compatibility_level = 3.6
queue_directory = {home}/spool
data_directory = {home}/data
maillog_file = {home}/mail.log
maillog_file_prefixes = {home}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 192.0.2.1/32
myhostname = {realm}
mydestination =
alias_maps =
alias_database =
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_tls_chain_files = {home}/server.pem
smtpd_sasl_auth_enable = yes
smtpd_sasl_local_domain = {realm}
cyrus_sasl_config_path = {home}/sasl
smtpd_helo_required = yes
smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
virtual_mailbox_domains = x.example
virtual_mailbox_base = {home}/mail
virtual_mailbox_maps = inline:{{ {mailboxes} }}
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nobody}
"""

# service type private unprivileged chroot wakeup maxproc command
MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""

SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {home}/sasldb2
mech_list: PLAIN LOGIN
"""


@dataclass(frozen=True)
class Postfix:
    """A running Postfix."""

    home: Path
    port: int

    def take_messages(self, mailbox: str, timeout: float = 10) -> list[bytes]:
        """Wait for a message in a mailbox, then remove all of its messages and return them."""
        new = self.home / "mail" / mailbox.partition("@")[0] / "new"
        ends = time.monotonic() + timeout
        while not (new.is_dir() and any(new.iterdir())) and time.monotonic() < ends:
            time.sleep(0.02)
        files = list(new.iterdir()) if new.is_dir() else []
        messages = [file.read_bytes() for file in files]
        for file in files:
            file.unlink()
        return messages

    @property
    def log(self) -> str:
        """The content of its log."""
        file = self.home / "mail.log"
        return file.read_text() if file.exists() else ""


def missing() -> str | None:
    """Return why Postfix cannot be started here, or None."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: apt-get install postfix sasl2-bin libsasl2-modules)"
    return "Postfix starts only as root" if os.geteuid() != 0 else None


@contextmanager
def running(certificate: trustme.LeafCert) -> Iterator[Postfix]:
    """Run Postfix with this certificate during the block."""
    # Not pytest's directory: Postfix drops root privileges and has to read its files.
    with tempfile.TemporaryDirectory(prefix="postfix-") as home:
        postfix = Postfix(Path(home), free_port())
        _write_files(postfix, certificate)
        process = subprocess.Popen(
            ["postfix", "-c", home, "start-fg"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            _wait_for_greeting(postfix, process)
            yield postfix
        finally:
            subprocess.run(["postfix", "-c", home, "stop"], check=False, capture_output=True)
            process.communicate(timeout=30)


def _write_files(postfix: Postfix, certificate: trustme.LeafCert) -> None:
    home = postfix.home
    home.chmod(0o755)
    for name, owner in (("spool", "root"), ("data", "postfix"), ("mail", NOBODY), ("sasl", "root")):
        (home / name).mkdir()
        shutil.chown(home / name, owner)
    mailboxes = ", ".join(f"{{ {address} = {address.partition('@')[0]}/ }}" for address in MAILBOXES)
    main = MAIN.format(home=home, realm=REALM, mailboxes=mailboxes, nobody=NOBODY)
    (home / "main.cf").write_text(main)
    (home / "master.cf").write_text(MASTER.format(port=postfix.port))
    (home / "sasl" / "smtpd.conf").write_text(SASL.format(home=home))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(home / "server.pem"))
    accounts = home / "sasldb2"
    create = ["saslpasswd2", "-p", "-c", "-f", str(accounts), "-u", REALM, USERNAME]
    subprocess.run(create, input=PASSWORD.encode(), check=True, capture_output=True)
    shutil.chown(accounts, "postfix")


def _wait_for_greeting(postfix: Postfix, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + START_TIMEOUT
    while time.monotonic() < ends and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", postfix.port), 5) as sock:
                if sock.recv(3) == b"220":
                    return
        except OSError:
            time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=30)
    raise RuntimeError(f"Postfix did not start:\n{output.decode(errors='replace')}\n{postfix.log}")


def main() -> None:
    """Run Postfix until Enter is pressed."""
    problem = missing()
    if problem:
        raise SystemExit(problem)
    authority = trustme.CA()
    with running(authority.issue_cert("127.0.0.1", "localhost")) as postfix:
        ca_file = postfix.home / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        print(f"SMTP server 127.0.0.1, port {postfix.port}, STARTTLS, username {USERNAME}, password {PASSWORD}")
        print(
            f"Start the portal with MAIL_CA_FILE={ca_file}; mailboxes {', '.join(MAILBOXES)} in {postfix.home / 'mail'}"
        )
        input("Press Enter to stop it. ")


if __name__ == "__main__":
    main()
