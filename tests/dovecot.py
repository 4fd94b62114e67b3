"""A real Dovecot submission server on loopback in its own directory: STARTTLS, XOAUTH2 and OAUTHBEARER.

It asks a small server of the test whether a token is valid (RFC 7662), and passes messages on to another mail server.
A Dovecot that already runs is not affected.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs

import trustme

from tests.ports import free_port

PACKAGES = "dovecot-core dovecot-submissiond"
SUBMISSION = Path("/usr/lib/dovecot/submission-login")
START_TIMEOUT = 20  # seconds
NOBODY = 65534

CONFIGURATION = """\
protocols = submission
listen = 127.0.0.1
hostname = smtp.mail.test
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
ssl = required
ssl_cert = <{home}/server.pem
ssl_key = <{home}/server.pem
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
mail_location = maildir:{home}/mail
passdb {{
  driver = oauth2
  args = {home}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid={nobody} gid={nobody} home={home}/mail
}}
service submission-login {{
  inet_listener submission {{
    port = {port}
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
submission_relay_host = 127.0.0.1
submission_relay_port = {relay_port}
"""
INTROSPECTION = """\
introspection_mode = post
introspection_url = http://id:secret@127.0.0.1:{port}/introspect
username_attribute = username
active_attribute = active
active_value = true
"""


@dataclass(frozen=True)
class Dovecot:
    """A running Dovecot."""

    home: Path
    port: int

    @property
    def log(self) -> str:
        """The content of its log."""
        file = self.home / "log"
        return file.read_text() if file.exists() else ""


def missing() -> str | None:
    """Return why Dovecot cannot be started here, or None."""
    if shutil.which("dovecot") is None or not SUBMISSION.exists():
        return f"Dovecot's submission server is not installed (Debian: apt-get install {PACKAGES})"
    version = subprocess.run(["dovecot", "--version"], check=True, capture_output=True, text=True).stdout
    if not version.startswith("2.3."):
        return f"Dovecot {version.split()[0]} is configured in another way than 2.3, which these tests run"
    return "Dovecot starts only as root" if os.geteuid() != 0 else None


@contextmanager
def running(
    certificate: trustme.LeafCert,
    mailboxes: Mapping[str, str],
    relay_port: int,
    mechanisms: str = "XOAUTH2 OAUTHBEARER",
) -> Iterator[Dovecot]:
    """Run Dovecot during the block. `mailboxes` has the mailbox of each valid token."""
    # Not pytest's directory: Dovecot drops root privileges and has to read its files.
    with tempfile.TemporaryDirectory(prefix="dovecot-") as directory, _introspection(mailboxes) as introspection_port:
        dovecot = Dovecot(Path(directory), free_port())
        values = {"port": dovecot.port, "relay_port": relay_port, "mechanisms": mechanisms.lower()}
        _write_files(dovecot.home, certificate, introspection_port, values)
        command = ["dovecot", "-F", "-c", f"{directory}/dovecot.conf"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            _wait_for_greeting(dovecot, process)
            yield dovecot
        finally:
            process.terminate()
            process.communicate(timeout=30)


def _write_files(
    home: Path, certificate: trustme.LeafCert, introspection_port: int, values: Mapping[str, object]
) -> None:
    home.chmod(0o755)
    (home / "mail").mkdir()
    shutil.chown(home / "mail", NOBODY)
    (home / "dovecot.conf").write_text(CONFIGURATION.format(home=home, nobody=NOBODY, **values))
    (home / "oauth2.conf").write_text(INTROSPECTION.format(port=introspection_port))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(home / "server.pem"))


@contextmanager
def _introspection(mailboxes: Mapping[str, str]) -> Iterator[int]:
    """Say whose tokens are valid, at a port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            mailbox = mailboxes.get(form["token"][0])
            body = json.dumps({"active": mailbox is not None, "username": mailbox}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _wait_for_greeting(dovecot: Dovecot, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + START_TIMEOUT
    while time.monotonic() < ends and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", dovecot.port), 5) as sock:
                if sock.recv(3) == b"220":
                    return
        except OSError:
            time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=30)
    raise RuntimeError(f"Dovecot did not start:\n{output.decode(errors='replace')}\n{dovecot.log}")
