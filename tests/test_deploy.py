"""The files for operators' machines: units for systemd, the image and the compose file.

tests/test_operation.py starts the services of the units behind nginx.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from portal.config import ROOT
from tests.bare_machine import BareMachine, bare_machine, missing
from tests.pages import PASSWORD
from tests.processes import wait_for

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
MAX_EXPOSURE = 20  # tenths, as `systemd-analyze security` counts: 100 is no protection
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
OURS = ("init", "upgrade", "web", "worker")

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_valid_and_protects_the_machine(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name  # in a place where the program of the unit exists
    copy.write_text(unit.read_text().replace("/opt/pbx-portal/bin/pbx-portal", "/bin/true"))
    checked = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", str(copy)],
        capture_output=True,
        text=True,
    )
    assert rated.returncode == 0, rated.stdout.splitlines()[-1]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_service_is_replaced_and_has_time_to_finish(unit: Path) -> None:
    options = dict(line.split("=", 1) for line in unit.read_text().splitlines() if re.match(r"\w+=", line))
    if options.get("Type") != "oneshot":
        assert options["Restart"] == "always"
        assert int(options["TimeoutStopSec"]) >= 90


def test_containers_cannot_write_and_have_no_rights() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert SERVICES["web"]["ports"] == ["127.0.0.1:8000:8000"]


def test_web_and_worker_cannot_change_tables() -> None:
    for name in ("web", "worker"):
        assert SERVICES[name]["volumes"] == ["./settings/portal.env:/etc/pbx-portal/portal.env:ro"]
        assert SERVICES[name]["depends_on"] == {"upgrade": {"condition": "service_completed_successfully"}}


def test_proxies_log_no_link_with_a_secret(app: Flask) -> None:
    """Those of emails have a token, and those to which a provider redirects have a code."""
    rules = [rule.rule for rule in app.url_map.iter_rules()]
    secret = [rule for rule in rules if "<token>" in rule or rule.endswith("/callback")]
    assert len(secret) > 10
    for name, count in (("nginx.conf", 2), ("Caddyfile", 2)):
        patterns = re.findall(r"\S*\(\(account\S*/callback\)", (ROOT / "deploy" / name).read_text())
        assert len(patterns) == count
        for pattern in patterns:
            plain = pattern.strip('"~')
            assert [rule for rule in secret if not re.search(plain, rule)] == []
            assert not re.search(plain, "/tenants/acme.example/deliveries")


def instructions(stage: int) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a stage of the Dockerfile, each with its argument."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    (_comment, *stages) = re.split(r"^FROM .*\n", text, flags=re.M)
    for line in stages[stage].splitlines():
        if line and not line.startswith("#"):
            instruction, _, argument = line.partition(" ")
            yield instruction, argument


def files_of_the_context() -> Sequence[str]:
    """Return the files that .dockerignore leaves: it excludes all, then includes some, then excludes some again."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    included = [line[1:] for line in lines if line.startswith("!")]
    excluded = [line for line in lines[1:] if not line.startswith("!")]
    assert excluded == ["**/__pycache__", "static/vendor"]  # which git ignores too
    list_files = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.check_output(list_files, cwd=ROOT, text=True).splitlines()
    return [file for file in tracked if any(file == one or file.startswith(f"{one}/") for one in included)]


# A container: a file system that is read-only but for /tmp, and a user without rights.
CONTAINER = """
mount --make-rprivate / && mount -o remount,bind,ro / && mount -t tmpfs tmpfs /tmp
exec setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all env {}
"""


class Containers:
    """Runs the services of the compose file as the image does."""

    def __init__(self, machine: BareMachine) -> None:
        self._machine, self._image = machine, dict(instructions(1))

    def run(self, name: str, *arguments: str, background: bool = False) -> str:
        """Run a service's command with these arguments and return what it prints."""
        service = SERVICES[name]
        entrypoint = service.get("entrypoint", json.loads(self._image["ENTRYPOINT"]))
        command = service.get("command", [] if "entrypoint" in service else json.loads(self._image["CMD"]))
        return self._run(service, [*entrypoint, *command, *arguments], background)

    def is_healthy(self, name: str) -> bool:
        """Return whether a service's health check succeeds."""
        own = SERVICES[name].get("healthcheck")
        of_image = json.loads(self._image["HEALTHCHECK"].partition("CMD ")[2])
        with suppress(AssertionError):
            self._run(SERVICES[name], own["test"][1:] if own else of_image)
            return True
        return False

    def _run(self, service: Mapping[str, Any], command: Sequence[str], background: bool = False) -> str:
        variables = {"PATH": "/opt/pbx-portal/bin:/usr/bin:/bin", "PORTAL_PASSWORD": PASSWORD}
        variables |= service.get("environment", {})
        assignments = [f"{name}={value.replace('${POSTGRES_PASSWORD}', 'secret')}" for name, value in variables.items()]
        line = CONTAINER.format(shlex.join([*assignments, *command]))
        unshared = f"unshare --mount bash -euc {shlex.quote(line)}"
        return self._machine.run(f"{unshared} > /var/log/{command[1]}.log 2>&1 &" if background else unshared)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BareMachine]:
    """A machine without a portal, with Debian's Postgres under the name that it has among containers."""
    with bare_machine(tmp_path) as machine:
        machine.run("printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d")
        machine.run("apt-get update; apt-get install --yes postgresql", online=True)
        machine.run(
            "rm --recursive --force /opt/pbx-portal /etc/pbx-portal /var/lib/pbx-portal\n"
            "echo 127.0.0.1 postgres >> /etc/hosts\n"
            "pg_dropcluster --stop 15 main || true\n"
            "pg_createcluster 15 main\n"
            "pg_ctlcluster 15 main start\n"
            "runuser --user postgres -- psql --command \"ALTER ROLE postgres PASSWORD 'secret'\""
        )
        yield machine


@pytest.mark.operation
@pytest.mark.skipif(missing() is not None, reason=f"no bare machine: {missing()}")
def test_the_steps_of_the_image_make_a_portal_that_writes_nothing(machine: BareMachine) -> None:
    folder = "/"
    for instruction, argument in instructions(0):
        if instruction == "WORKDIR":
            folder = argument
            machine.run(f"mkdir --parents {folder}")
        elif instruction == "COPY":
            files = shlex.join(files_of_the_context())
            machine.run(f"tar --create --directory={ROOT} {files} | tar --extract --directory={folder}")
        else:
            machine.run(argument, folder=folder, online=True)
    for instruction, argument in instructions(1):
        if instruction == "RUN":
            machine.run(argument)
    machine.run("mount -t tmpfs -o uid=10001,mode=700 tmpfs /etc/pbx-portal")  # ./settings
    containers = Containers(machine)
    said = containers.run("init", "--url", "https://portal.example.com", "--administrator", "root@pbx.example")
    assert "Administrator: root@pbx.example" in said
    assert containers.run("upgrade") == "The database schema is current.\n"
    containers.run("web", background=True)
    containers.run("worker", background=True)
    for name in ("web", "worker"):
        wait_for(lambda name=name: containers.is_healthy(name))  # type: ignore[misc]
