"""The web server as operators run it: real processes on the database of the tests."""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Thread
from types import MappingProxyType

import pytest
from flask import Flask
from werkzeug.serving import make_server

from portal.config import Settings
from tests import processes
from tests.ports import free_port

HOST = "127.0.0.1"
SERVER = ("portal", "run")
PASSED = ("portal_env", "secret_key", "encryption_keys", "database_url")


@pytest.fixture
def portal_url(app: Flask) -> Iterator[str]:
    """The URL of the portal, which this process serves."""
    server = make_server(HOST, 0, app, threaded=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://{HOST}:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def running(settings: Settings, *options: str, **environment: str) -> Iterator[int]:
    """Run the web server during the block and yield its port."""
    with started(settings, *options, **environment) as (port, _process):
        yield port


@contextmanager
def started(
    settings: Settings, *options: str, program: Sequence[str] = SERVER, **environment: str
) -> Iterator[tuple[int, ForkServerProcess]]:
    """Do the same, and yield the port and the process that started the others."""
    port = free_port()
    process = start(settings, port, *options, program=program, environment=environment)
    try:
        processes.wait_for(lambda: not process.is_alive() or answers(port))
        assert process.is_alive(), "the web server did not start"
        yield port, process
    finally:
        process.terminate()
        process.join(100)  # Granian kills a process that is still starting after 80 seconds


def start(
    settings: Settings,
    port: int,
    *options: str,
    program: Sequence[str] = SERVER,
    output: Path = Path(os.devnull),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> ForkServerProcess:
    """Start the web server; what it prints is in the file `output`."""
    command = (*program, "--port", str(port), *options)
    given = variables(settings, port)
    return processes.start(*command, environment={**os.environ, **given, **environment}, output=output)


def variables(settings: Settings, port: int) -> Mapping[str, str]:
    """Return the environment variables of a portal with these settings at this port."""
    given = {name.upper(): _plain(getattr(settings, name)) for name in PASSED}
    return given | {"PORTAL_URL": f"http://{HOST}:{port}", "SMTP_ALLOWED_NETWORKS": "127.0.0.0/8,::1"}


def get(port: int, path: str) -> int:
    """Return the status of the response to a request, within ten seconds."""
    return _get(port, path)[0]


def get_text(port: int, path: str) -> str:
    """Return the text of the response to a request, within ten seconds."""
    return _get(port, path)[1]


def _get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def answers(port: int) -> bool:
    """Return whether the server answers at the moment."""
    with suppress(OSError):
        return get(port, "/livez") == 200
    return False


def is_open(port: int, host: str = HOST) -> bool:
    """Return whether a program accepts connections at the port."""
    with suppress(OSError), socket.create_connection((host, port), timeout=10):
        return True
    return False


def _plain(value: object) -> str:
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)
