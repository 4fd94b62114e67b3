"""The web server: slow clients, unread and large responses, a port in use."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.config import Settings
from portal.extensions import db
from portal.pbx import api_keys
from portal.server import main as server_main
from portal.tenants import service as tenant_service
from portal.web import front
from tests import web_server
from tests.processes import wait, wait_for
from tests.sql import owner_engine, sql
from tests.web_server import get

pytestmark = pytest.mark.slow

WAITING = (
    b"POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer x\r\nContent-Length: 60000\r\n\r\n{"
)
CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted' AND datname = current_database()
"""
EVENT = b"POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"

Connect = Callable[[bytes], socket.socket]


@pytest.fixture(scope="module")
def port(built_app: Flask, settings: Settings) -> Iterator[int]:
    """The port of a server with one process and two threads."""
    with web_server.running(settings, "--processes", "1", "--threads", "2") as port:
        yield port


@pytest.fixture(scope="module", autouse=True)
def abandoned(port: int) -> Iterator[socket.socket]:
    """A connection whose body does not arrive while the other tests run."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(WAITING)
        yield connection


@pytest.fixture(scope="module", autouse=True)
def abandoned_chunks(port: int) -> Iterator[socket.socket]:
    """The same with a body in chunks."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(EVENT + b"Authorization: Bearer x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        yield connection


@pytest.fixture
def connect(port: int) -> Iterator[Connect]:
    """A function that opens a connection and sends these bytes."""
    with ExitStack() as connections:

        def connect(request: bytes) -> socket.socket:
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            connection.sendall(request)
            return connection

        yield connect


def status(connection: socket.socket) -> int:
    """Return the status of the next response."""
    return int(connection.recv(1000).split()[1])


def test_slow_bodies_hold_no_thread(port: int, connect: Connect) -> None:
    for _ in range(40):
        connect(WAITING)
    assert get(port, "/sign-in") == 200


def test_the_slow_bodies_of_one_client_are_limited(connect: Connect) -> None:
    connections = [connect(WAITING) for _ in range(60)]
    began = time.monotonic()
    assert status(connections[-1]) == 408
    assert time.monotonic() - began < 10  # before the time for a body is over


@pytest.fixture(scope="module")
def proxied_port(built_app: Flask, settings: Settings) -> Iterator[int]:
    """The port of a server that trusts a reverse proxy."""
    with web_server.running(settings, "--processes", "1", "--threads", "2", TRUSTED_PROXIES="1") as port:
        yield port


@pytest.mark.parametrize(
    "forwarded",
    [
        "X-Forwarded-For: 198.51.100.7:{}",
        "X-Forwarded-For: 203.0.113.{}, 198.51.100.8",
        "X-Forwarded-For: 203.0.113.{}\r\nX-Forwarded-For: 198.51.100.9",  # the proxy adds a header of its own
        "X-Forwarded-For: 2001:db8::{}",
    ],
)
def test_a_client_behind_a_proxy_is_limited_whatever_it_sends(proxied_port: int, forwarded: str) -> None:
    with ExitStack() as connections:
        last = None
        for number in range(60):
            last = connections.enter_context(socket.create_connection(("127.0.0.1", proxied_port), timeout=30))
            last.sendall(WAITING.replace(b"\r\n\r\n", f"\r\n{forwarded.format(number)}\r\n\r\n".encode()))
        began = time.monotonic()
        assert last
        assert status(last) == 408
        assert time.monotonic() - began < 10


def test_without_a_key_the_body_is_not_read(connect: Connect) -> None:
    assert status(connect(EVENT + b"Content-Length: 60000\r\n\r\n{")) == 401


def test_after_a_request_with_two_lengths_the_connection_ends(connect: Connect) -> None:
    """Nothing can be smuggled in after it (RFC 9112, section 6.1)."""
    lengths = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    connection = connect(EVENT + lengths + b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    answer = b""
    while part := connection.recv(4096):
        answer += part
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_body_in_chunks_is_read(connect: Connect) -> None:
    chunks = b"Authorization: Bearer x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    connection = connect(EVENT + chunks)
    assert status(connection) == 401
    connection.sendall(EVENT + chunks)  # the next request of the connection is read from its beginning
    assert status(connection) == 401


@pytest.mark.parametrize("length", [1_000_001, 50_000_000])
def test_a_form_that_is_too_large_is_rejected(connect: Connect, length: int) -> None:
    connection = connect(f"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n".encode())
    with suppress(OSError):  # the server closes the connection
        connection.sendall(b"x" * length)
    assert status(connection) in {400, 413}


AUDIT_ENTRIES = """
    INSERT INTO audit_entries (id, created_at, actor, action, subject, changes)
    SELECT overlay('01900000-0000-7000-8000-000000000000' PLACING lpad(to_hex(n), 12, '0') FROM 25)::uuid, now(), 'ann',
        'account.added', repeat('x', 3000), '{}' FROM generate_series(1, 2000) AS n
"""


def test_downloads_that_nobody_reads_hold_no_thread(
    app: Flask, system: FlaskClient, port: int, connect: Connect
) -> None:
    with app.app_context():
        sql(AUDIT_ENTRIES)
    session = system.get_cookie("session")
    assert session
    request = f"GET /system/audit.csv HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: session={session.value}\r\n\r\n".encode()
    for _ in range(3):  # one more than there are threads
        assert status(connect(request)) == 200
    assert get(port, "/sign-in") == 200
    downloads = [connect(request) for _ in range(40)]
    # One for an account. 503 to those that found no free thread in time, on a busy machine.
    assert {200, 429} <= {status(download) for download in downloads} <= {200, 429, 503}


def download(app: Flask, system: FlaskClient, port: int) -> bytes:
    """Return a file that is too large to be sent from memory."""
    with app.app_context():
        sql(AUDIT_ENTRIES)
    session = system.get_cookie("session")
    assert session
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/system/audit.csv", headers={"Cookie": f"session={session.value}"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert len(content) == int(response.headers["Content-Length"]) > front.MAX_BYTES_IN_MEMORY
    return content


def test_a_large_file_arrives_whole(app: Flask, system: FlaskClient, port: int) -> None:
    content = download(app, system, port)
    assert content.count(b"x" * 3000) == 2 * 2_000, "in the subject, and in what happened"


def test_no_file_is_left_when_it_stops(app: Flask, settings: Settings, system: FlaskClient, tmp_path: Path) -> None:
    with web_server.running(settings, "--processes", "1", TMPDIR=str(tmp_path)) as port:
        download(app, system, port)
        assert list(tmp_path.glob("portal-download-*"))
    assert not list(tmp_path.glob("portal-download-*"))


def test_a_client_that_leaves_within_a_body_is_forgotten(port: int, connect: Connect) -> None:
    connect(WAITING).close()
    assert get(port, "/sign-in") == 200
    wait_for(lambda: not any(each.status == psutil.CONN_CLOSE_WAIT for each in connections_to(port)))


def connections_to(port: int) -> list[Any]:
    """Return the server's ends of the connections to a port."""
    return [each for each in psutil.net_connections("tcp4") if each.laddr and each.laddr.port == port]


@pytest.mark.parametrize("end", [b"", b"zz\r\n", b"0\r\nX-Trailer: x\r\n\r\n"])
def test_of_a_body_that_breaks_off_the_beginning_is_not_taken_for_it(connect: Connect, end: bytes) -> None:
    head = b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection = connect(head + b"3\r\na=b\r\n" + end)
    if not end:
        connection.shutdown(socket.SHUT_WR)
    assert b"incomplete" in connection.recv(1000)


@pytest.mark.parametrize("head", [WAITING, WAITING.replace(b"Content-Length: 60000", b"Transfer-Encoding: chunked")])
def test_clients_that_left_within_a_body_do_not_keep_it_from_stopping(
    settings: Settings, built_app: Flask, head: bytes
) -> None:
    with web_server.started(settings, "--processes", "1", "--threads", "2") as (port, process):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(head)
        assert get(port, "/sign-in") == 200
        process.terminate()
        process.join(10)  # seconds; what is left of a body would take 15
        assert not process.is_alive()


def test_header_names_with_an_underscore_are_dropped(connect: Connect) -> None:
    head = b"GET /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    assert status(connect(head + b"Content_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n")) == 200


def test_it_is_alive_without_its_database(settings: Settings) -> None:
    gone = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    with web_server.running(settings, "--processes", "1", **gone) as port:
        assert get(port, "/livez") == 200
        assert get(port, "/healthz") == 503


def test_connections_to_postgres_stay_within_the_documented_number(
    app: Flask, settings: Settings, acme: str, admin: FlaskClient
) -> None:
    with app.app_context():
        key = api_keys.issue(tenant_service.find(acme)).secret
        lock = owner_engine(db.engine.url).connect()
    cookie = admin.get_cookie("session")
    assert cookie
    event = EVENT + f"Authorization: Bearer {key}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    page = f"GET /account HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: session={cookie.value}\r\n\r\n".encode()
    options = ("--processes", "1", "--threads", "64")
    with web_server.running(settings, *options, PGAPPNAME="counted") as port, ExitStack() as connections:
        connections.enter_context(lock)
        lock.exec_driver_sql("LOCK TABLE api_keys, account_sessions")  # so that each request keeps its connection
        for request in [event, page] * 32:
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            connections.enter_context(connection).sendall(request)
        with app.app_context():
            wait_for(lambda: sql(CONNECTIONS)[0][0] >= 12)  # docs/operation.md
            counts = {sql(CONNECTIONS)[0][0] for _ in range(500)}
    assert max(counts) == 12


def test_invalid_settings_are_reported_once(settings: Settings, built_app: Flask, tmp_path: Path) -> None:
    output = tmp_path / "output"
    server = web_server.start(settings, 8999, output=output, environment={"RETENTION_DAYS": "0"})
    assert wait(server, 60) == 1
    assert output.read_text().count("RETENTION_DAYS") == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--port", "99999"),
        ("--port", "0"),
        ("--port", "x"),
        ("--processes", "0"),
        ("--threads", "0"),
        ("--threads", "-1"),
    ],
)
def test_an_option_out_of_range_is_refused(capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    with pytest.raises(SystemExit) as error:
        server_main([f"{option}={value}"])
    assert error.value.code == 2
    assert f"argument {option}: must be a number from 1 to " in capsys.readouterr().err


def test_a_second_server_on_the_port_does_not_start(settings: Settings, port: int, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert wait(web_server.start(settings, port, output=output), 60) == 1
    assert "Address already in use" in output.read_text()


def test_chunks_that_do_not_arrive_end_with_408_and_the_connection(abandoned_chunks: socket.socket) -> None:
    assert status(abandoned_chunks) == 408
    abandoned_chunks.settimeout(5)
    assert abandoned_chunks.recv(1) == b""


def test_a_body_that_does_not_arrive_ends_with_408(abandoned: socket.socket) -> None:
    assert status(abandoned) == 408


def test_a_path_is_decoded_once(connect: Connect) -> None:
    end = b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    paths = (b"/%73ign-in", b"/%2573ign-in", b"/%C3%A9", b"/%ff", b"/%")
    assert [status(connect(b"GET " + path + end)) for path in paths] == [200, 404, 404, 404, 404]


def test_a_query_that_is_not_encoded_is_read_as_utf_8(connect: Connect) -> None:
    end = b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    queries = ("?next=/\N{EURO SIGN}".encode(), "?next=/\xe4".encode())
    assert [status(connect(b"GET /sign-in" + query + end)) for query in queries] == [200, 200]
