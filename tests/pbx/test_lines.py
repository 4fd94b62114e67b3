"""The ready lines on the page "Connect a PBX", taken from the page and run: each one's event is accepted."""

import html
import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from lupa import lua52

from portal.pbx.integrate.makes import MAKES
from tests.pages import csrf_token
from tests.pbx.dialplan import Channel, run
from tests.pbx.test_examples import address
from tests.smtp_peer import SmtpPeer, unstuffed
from tests.sql import sql

__all__ = ["address"]

PAGE = "/tenants/acme.example/connect"
NASTY = 'Ana "O\'Kovač" \\ $(reboot) `x` ${EPOCH} ;,) }'
Lines = Callable[[str], str]


@pytest.fixture
def lines(app: Flask, admin: FlaskClient, ready: str, address: str) -> Iterator[Lines]:
    """A function that returns the text of lines on the page, with a key that was issued there."""
    before = app.extensions["settings"]
    app.extensions["settings"] = before.model_copy(update={"portal_url": address})
    token = csrf_token(admin.get(PAGE).text)
    page = admin.post(PAGE, data={"csrf_token": token, "name": "Main PBX"}).text

    def lines(name: str) -> str:
        found = re.search(rf'<code class="code" id="line-{name}">(.*?)</code>', page, re.DOTALL)
        assert found, name
        return html.unescape(found[1])

    yield lines
    app.extensions["settings"] = before


def recorded(app: Flask) -> tuple[str, str, dict[str, Any]]:
    """Return id, type and data of the one event that was recorded."""
    with app.app_context():
        ((event_id, kind, data),) = sql("SELECT event_id, type, data FROM events")
    return event_id, kind, data


def test_curl(app: Flask, lines: Lines) -> None:
    done = subprocess.run(["sh", "-eu", "-c", lines("curl")], capture_output=True, timeout=30)
    assert json.loads(done.stdout)["status"] == "sent", done.stderr
    assert recorded(app)[1] == "queue.call_lost"


def test_asterisk(app: Flask, lines: Lines, peer: SmtpPeer) -> None:
    channel = Channel(number="+49301234567", name=NASTY, abandoned=True)
    assert json.loads(run(lines("asterisk"), channel))["status"] == "sent"
    assert recorded(app) == (
        channel.unique_id,
        "queue.call_lost",
        {
            "queue_number": "8000",
            "caller_number": "+49301234567",
            "caller_name": NASTY,
            "waited_seconds": channel.waited,
        },
    )
    assert b"Ana" in unstuffed(peer.mails[0].content)


def test_asterisk_reports_neither_an_answered_call_nor_fails_for_a_hidden_number(app: Flask, lines: Lines) -> None:
    assert run(lines("asterisk"), Channel(number="1", name="", abandoned=False)) == ""
    assert json.loads(run(lines("asterisk"), Channel(number="", name="", abandoned=True)))["status"] == "sent"
    assert recorded(app)[2]["caller_number"] == "anonymous"


def callcenter(**changes: str) -> dict[str, str]:
    """Return the headers of an event of mod_callcenter, when a caller has left a queue."""
    headers = {
        "CC-Action": "member-queue-end",
        "CC-Cause": "Cancel",
        "CC-Cancel-Reason": "BREAK_OUT",
        "CC-Queue": "8000@acme.example",
        "CC-Member-UUID": "5f1c7a2e-8d1b-4c39-9c11-0f5d1a2b3c4d",
        "CC-Member-Joined-Time": "1764000000",
        "CC-Member-Leaving-Time": "1764000095",
        "CC-Member-CID-Name": NASTY,
        "CC-Member-CID-Number": "+49301234567",
    }
    return headers | {name.replace("_", "-"): value for name, value in changes.items()}


def hear(script: str, *events: dict[str, str]) -> None:
    """Run a Lua script as FreeSWITCH does, and let it hear these events."""
    lua: Any = lua52.LuaRuntime(unpack_returned_tuples=True, encoding="utf-8")
    lua.globals().shell = lambda command, body: subprocess.run(["sh", "-c", command], input=body.encode(), timeout=30)
    lua.globals().heard = lua.table_from([lua.table_from(each) for each in events])
    lua.execute("""
        io.popen = function(command, mode)  -- which this Lua was built without
            assert(mode == "w")
            local body = ""
            return {write = function(self, text) body = body .. text end, close = function() shell(command, body) end}
        end
        freeswitch = {EventConsumer = function(name, subclass)
            assert(name == "CUSTOM" and subclass == "callcenter::info")
            local next_one = 0
            return {pop = function(self, blocking)
                next_one = next_one + 1
                local headers = heard[next_one]
                return headers and {getHeader = function(self, name) return headers[name] end}
            end}
        end}
    """)
    lua.execute(script)


def test_freeswitch(app: Flask, lines: Lines) -> None:
    others = [
        {"CC-Action": "agent-offering"},
        callcenter(CC_Cause="Terminated"),
        callcenter(CC_Cancel_Reason="EXIT_WITH_KEY"),
    ]
    hear(lines("freeswitch"), *others, callcenter())
    assert recorded(app) == (
        "5f1c7a2e-8d1b-4c39-9c11-0f5d1a2b3c4d",
        "queue.call_lost",
        {
            "queue_number": "8000",
            "caller_number": "+49301234567",
            "caller_name": NASTY,
            "waited_seconds": 95,
            "reason": "hangup",
        },
    )
    assert "startup-script" in lines("freeswitch-xml")


def test_freeswitch_with_a_hidden_number(app: Flask, lines: Lines) -> None:
    hear(lines("freeswitch"), callcenter(CC_Member_CID_Number="", CC_Member_CID_Name="", CC_Cancel_Reason="TIMEOUT"))
    _, _, data = recorded(app)
    assert (data["caller_number"], data["reason"]) == ("anonymous", "timeout")


def test_portsip(app: Flask, lines: Lines) -> None:
    payload = {"event_type": "extension_created", "extension_number": "101", "tenant_id": "7"}
    headers = {"Authorization": f"Bearer {lines('portsip-token')}", "Content-Type": "application/json"}
    request = urllib.request.Request(lines("portsip"), json.dumps(payload).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["events"][0]["status"] == "sent"
    assert recorded(app)[1] == "user.created"


def test_each_make_has_lines(lines: Lines) -> None:
    assert all(lines(make.name) for make in MAKES)
