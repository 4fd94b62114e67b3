"""docs/operation.md: its commands are executed, in the order of the document, on a machine of their own.

Each ```sh block of the document is executed by `bash -euo pipefail` as root, in a checkout of the portal. What a block
leaves behind (files, databases, running services) is there for the next one; shell variables and the folder are not.
PORTAL_PASSWORD and PORTAL_MAIL_PASSWORD are set where an operator would be asked. A block that cannot be executed here
has a comment in front of it, in a line of its own, that says why:

    <!-- not executed: the reason -->
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from portal.config import ROOT
from tests.bare_machine import BareMachine, bare_machine, missing
from tests.pages import PASSWORD

DOCUMENT = ROOT / "docs" / "operation.md"
BLOCK = re.compile(r"(?:^<!-- not executed: (?P<reason>[^\n]+?) -->\n+)?^```sh\n(?P<commands>.*?)^```$", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Block:
    """Commands of the document: the line of the first one, and why they are not executed."""

    line: int
    commands: str
    reason: str | None


def blocks() -> list[Block]:
    """Return the blocks of commands in the document, in its order."""
    text = DOCUMENT.read_text()
    return [
        Block(text.count("\n", 0, found.start("commands")) + 1, found["commands"], found["reason"])
        for found in BLOCK.finditer(text)
    ]


FETCHES = re.compile(r"\b(apt-get|pip install|make wheel|git clone)\b")
HOST = "portal.example.com"


# What an operator has: a checkout, and a host name with a certificate. Debian starts what it installs; here
# `policy-rc.d` keeps it from that, because packages are fetched outside of the machine's own network.
PREPARE = """
mkdir /root/portal && cd {root}
git ls-files -z --cached --others --exclude-standard > /root/files
tar --create --null --files-from=/root/files | tar --extract --directory=/root/portal
install --mode 755 {root}/tests/bare_systemctl.py /usr/local/bin/systemctl
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
if command -v pg_dropcluster; then pg_dropcluster --stop 15 main || true; pg_createcluster 15 main; fi
rm --recursive --force /etc/pbx-portal /var/lib/pbx-portal
echo 127.0.0.1 {host} >> /etc/hosts
mkdir --parents /etc/letsencrypt/live/{host} /var/www/html
cp {files}/fullchain.pem {files}/privkey.pem /etc/letsencrypt/live/{host}/
cat {files}/authority.pem >> /etc/ssl/certs/ca-certificates.crt
"""
# A PBX reports an event through the reverse proxy.
REPORT = """
key=$(pbx-portal keys issue --tenant acme.example)
curl --fail-with-body --silent https://{host}/api/v1/events --header "Authorization: Bearer $key" \\
    --json '{{"type": "queue.call_lost", "data": {{"queue_number": "8000"}}}}'
"""
START_AS_DEBIAN = "if command -v {command}; then systemctl start {name}; fi"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BareMachine]:
    """A machine on which nothing of the portal is installed."""
    authority, files, folder = trustme.CA(), tmp_path / "files", tmp_path / "machine"
    certificate = authority.issue_cert(HOST)
    files.mkdir()
    folder.mkdir()
    authority.cert_pem.write_to_path(str(files / "authority.pem"))
    certificate.private_key_pem.write_to_path(str(files / "privkey.pem"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(files / "fullchain.pem"), append=True)
    with bare_machine(folder) as machine:
        machine.run(PREPARE.format(root=ROOT, files=files, host=HOST))
        yield machine


@pytest.mark.operation
@pytest.mark.skipif(missing() is not None, reason=f"no bare machine: {missing()}")
def test_every_command_does_what_it_says(machine: BareMachine) -> None:
    passwords = {"PORTAL_PASSWORD": PASSWORD, "PORTAL_MAIL_PASSWORD": "a mail password"}
    for block in blocks():
        if block.reason is None:
            online = bool(FETCHES.search(block.commands))
            began = time.monotonic()
            said = machine.run(block.commands, folder="/root/portal", online=online, **passwords)
            print(f"{DOCUMENT.name}:{block.line}, {time.monotonic() - began:.0f} s\n{said}")
            if online:
                for name, command in (("postgresql", "pg_ctlcluster"), ("nginx", "nginx")):
                    machine.run(START_AS_DEBIAN.format(name=name, command=command))
    said = machine.run(REPORT.format(host=HOST))
    assert json.loads(said)["status"] in {"sent", "deferred", "held"}
    said = machine.run("cat /var/log/pbx-portal-*.log")
    assert "TRUSTED_PROXIES" not in said  # the portal warns about headers that it does not expect
    assert "Traceback" not in said


def test_every_block_of_commands_is_found() -> None:
    text = DOCUMENT.read_text()
    assert len(blocks()) == text.count("```sh\n")
    assert "```bash" not in text
    assert "```shell" not in text
    assert text.count("<!-- not executed:") == sum(block.reason is not None for block in blocks())
