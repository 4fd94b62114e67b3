#!/usr/bin/python3
"""A substitute for `systemctl` on a bare machine, which has no systemd: starts what units say, as their user.

Of a unit it knows ExecStart, Type=oneshot, User, Environment, LoadCredential, StateDirectory and RuntimeDirectory. What
a service prints is in /var/log/UNIT.log. It knows Debian's services postgresql and nginx too.
"""

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

UNITS = Path("/etc/systemd/system")
DYNAMIC_USER = 61_184  # the first one of systemd's
CLUSTER = "pg_ctlcluster 15 main"
NGINX = "nginx -s reload 2>/dev/null || nginx"
DEBIAN = {
    "postgresql": {"start": f"{CLUSTER} status || {CLUSTER} start", "stop": f"{CLUSTER} stop -m fast"},
    "nginx": {"start": NGINX, "reload": NGINX, "stop": "nginx -s quit"},
}


def main() -> None:
    """Run the command."""
    command, *names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if command == "daemon-reload" or (command in {"enable", "disable"} and "--now" not in sys.argv):
        return
    command = {"enable": "start", "disable": "stop"}.get(command, command)
    for name in names:
        steps = ("stop", "start") if command == "restart" else (command,)
        for step in steps:
            run(name.removesuffix(".service"), step)


def run(name: str, step: str) -> None:
    """Take one step for a service."""
    if name in DEBIAN:
        subprocess.run(DEBIAN[name][step], shell=True, check=step == "start")
    elif step == "start":
        start(name)
    elif step == "stop":
        stop(name)
    elif step == "reload":
        (line,) = service_of(name)["ExecReload"]
        subprocess.run(shlex.split(line.replace("$MAINPID", str(process_of(name)))), check=True)
    elif step == "is-active":
        print("active" if process_of(name) else "inactive")
        sys.exit(0 if process_of(name) else 3)
    else:
        sys.exit(f"this systemctl does not know {step}")


def start(name: str) -> None:
    """Start a service, and wait for one that ends of its own (Type=oneshot)."""
    if process_of(name):
        return
    service = service_of(name)
    user = user_of(service)
    environment = environment_of(name, service, user)
    for kind, folder in (("StateDirectory", "/var/lib"), ("RuntimeDirectory", "/run")):
        for directory in service[kind]:
            Path(folder, directory).mkdir(exist_ok=True)
            os.chown(Path(folder, directory), user, user)
    command = shlex.split(service["ExecStart"][0])
    with Path("/var/log", f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd="/",
            env=environment,
            user=user,
            group=user,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    if service["Type"] == ["oneshot"]:
        if process.wait():
            sys.exit(f"{name} failed, see /var/log/{name}.log")
        return
    Path("/run", f"{name}.pid").write_text(str(process.pid))
    time.sleep(0.2)
    if process.poll() is not None:
        sys.exit(f"{name} ended at once, see /var/log/{name}.log")


def stop(name: str) -> None:
    """Stop a service."""
    if process := process_of(name):
        os.kill(process, signal.SIGTERM)
        while process_of(name):
            time.sleep(0.1)


def environment_of(name: str, service: Mapping[str, Sequence[str]], user: int) -> dict[str, str]:
    """Return the environment of a service, whose credentials are copied to where only its user reads them."""
    credentials = Path("/run/credentials", name)
    credentials.mkdir(parents=True, exist_ok=True)
    for credential in service["LoadCredential"]:
        target, _, source = credential.partition(":")
        shutil.copy(source, credentials / target)
        (credentials / target).chmod(0o400)
        os.chown(credentials / target, user, user)
    environment = {"PATH": os.environ["PATH"], "HOME": "/", "LANG": "C.UTF-8"}
    for assignments in service["Environment"]:
        for assignment in shlex.split(assignments.replace("%d", str(credentials))):
            variable, _, value = assignment.partition("=")
            environment[variable] = value
    return environment


def process_of(name: str) -> int | None:
    """Return the process of a service that runs, or None."""
    with suppress(OSError, ValueError):
        process = int(Path("/run", f"{name}.pid").read_text())
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return process if state != "Z" else None
    return None


def service_of(name: str) -> dict[str, list[str]]:
    """Return the options of a unit, each with its values."""
    options: defaultdict[str, list[str]] = defaultdict(list)
    for line in (UNITS / f"{name}.service").read_text().splitlines():
        option, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            options[option].append(value)
    return options


def user_of(service: Mapping[str, Sequence[str]]) -> int:
    """Return the number of a service's user."""
    if service["DynamicUser"] == ["yes"]:
        return DYNAMIC_USER
    return pwd.getpwnam(service["User"][0]).pw_uid if service["User"] else 0


if __name__ == "__main__":
    main()
