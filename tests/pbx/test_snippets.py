"""The configuration snippets on the page "Connect a PBX", taken from the page and run: their events are accepted."""

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

from portal.pbx.adapters.registry import ADAPTERS
from tests.pages import csrf_token
from tests.pbx.asterisk_simulator import Channel, run
from tests.pbx.test_docs import portal_url
from tests.smtp_peer import SmtpPeer
from tests.sql import sql

__all__ = ["portal_url"]

PAGE = "/tenants/acme.example/connect"
HOSTILE_NAME = 'Ana "O\'Kovač" \\ $(reboot) `x` ${EPOCH} ;,) }'
Snippet = Callable[[str], str]


@pytest.fixture
def snippet(app: Flask, admin: FlaskClient, working_tenant: str, portal_url: str) -> Iterator[Snippet]:
    """A function that returns a snippet of the page by name, with a key that was issued there."""
    before = app.extensions["settings"]
    app.extensions["settings"] = before.model_copy(update={"portal_url": portal_url})
    token = csrf_token(admin.get(PAGE).text)
    page = admin.post(PAGE, data={"csrf_token": token, "name": "Main PBX"}).text

    def snippet(name: str) -> str:
        match = re.search(rf'<code class="code" id="snippet-{name}">(.*?)</code>', page, re.DOTALL)
        assert match, name
        return html.unescape(match[1])

    yield snippet
    app.extensions["settings"] = before


def recorded(app: Flask) -> tuple[str, str, dict[str, Any]]:
    """Return id, type and data of the one event that was recorded."""
    with app.app_context():
        ((event_id, type_, data),) = sql("SELECT external_id, type, data FROM events")
    return event_id, type_, data


def test_curl(app: Flask, snippet: Snippet) -> None:
    done = subprocess.run(["sh", "-eu", "-c", snippet("curl")], capture_output=True, timeout=30)
    assert json.loads(done.stdout)["status"] == "sent", done.stderr
    assert recorded(app)[1] == "queue.call_lost"


def test_asterisk(app: Flask, snippet: Snippet, peer: SmtpPeer) -> None:
    channel = Channel(number="+49301234567", name=HOSTILE_NAME, abandoned=True)
    assert json.loads(run(snippet("asterisk"), channel))["status"] == "sent"
    assert recorded(app) == (
        f"{channel.unique_id}-8000",
        "queue.call_lost",
        {
            "queue_number": "8000",
            "caller_number": "+49301234567",
            "caller_name": HOSTILE_NAME,
            "waited_seconds": 95,
            "reason": "hangup",
        },
    )
    assert b"Ana" in peer.messages[0].content


def test_asterisk_with_a_hidden_number_and_a_name_that_json_does_not_allow(app: Flask, snippet: Snippet) -> None:
    assert json.loads(run(snippet("asterisk"), Channel("", "Ana\tKovač\r\n", abandoned=True)))["status"] == "sent"
    assert (recorded(app)[2]["caller_number"], recorded(app)[2]["caller_name"]) == ("anonymous", "Ana Kovač")


# Recorded from Asterisk: ABANDONED, QUEUESTATUS and QUEUEWAIT after Queue(), in the order of recordings/asterisk-*.
# Then DIALSTATUS, and the reason that is reported.
QUEUES_ENDED: list[tuple[bool, str, str, str, str | None]] = [
    (True, "", "3", "", "hangup"),
    (False, "", "1", "", None),  # answered, or left by key
    (True, "TIMEOUT", "5", "", "timeout"),
    (True, "TIMEOUT", "5", "NOANSWER", "timeout"),
    (True, "TIMEOUT", "5", "ANSWER", None),
    (False, "JOINEMPTY", "", "", "no_agents"),
    (False, "JOINUNAVAIL", "", "", "no_agents"),
    (True, "LEAVEEMPTY", "3", "", "no_agents"),
    (True, "LEAVEUNAVAIL", "3", "", "no_agents"),
    (False, "FULL", "", "", "full"),
    (True, "WITHDRAW", "3", "", None),  # a callback is wanted
    (False, "CONTINUE", "3", "", None),  # answered
]


def test_asterisk_looks_at_how_the_queue_ended(app: Flask, snippet: Snippet, subtests: pytest.Subtests) -> None:
    dialplan = snippet("asterisk").replace(" same => n,Hangup()", " same => n,Dial(PJSIP/front)\n same => n,Hangup()")
    for abandoned, status, waited, dial_status, reason in QUEUES_ENDED:
        with subtests.test(status, abandoned=abandoned, waited=waited, dial_status=dial_status):
            with app.app_context():
                sql("DELETE FROM events")
            response = run(dialplan, Channel("1", "", abandoned, status, waited, dial_status))
            assert bool(response) is (reason is not None)
            if reason:
                data = recorded(app)[2]
                assert (data["reason"], data.get("waited_seconds")) == (reason, int(waited) if waited else None)


def test_asterisk_reports_the_queues_that_a_call_leaves_one_after_the_other(app: Flask, snippet: Snippet) -> None:
    for number in ("8000", "8001"):
        dialplan = snippet("asterisk").replace("${EXTEN}", number)
        assert json.loads(run(dialplan, Channel("1", "", True, "TIMEOUT")))["duplicate"] is False


def callcenter_event(**changes: str) -> dict[str, str]:
    """Return the headers of the event that mod_callcenter sends when a caller has left a queue."""
    headers = {
        "CC-Action": "member-queue-end",
        "CC-Cause": "Cancel",
        "CC-Cancel-Reason": "BREAK_OUT",
        "CC-Queue": "8000@acme.example",
        "CC-Member-UUID": "5f1c7a2e-8d1b-4c39-9c11-0f5d1a2b3c4d",
        "CC-Member-Session-UUID": "c6ed915e-743d-4110-a9bb-ac257b0e6274",
        "CC-Member-Joined-Time": "1764000000",
        "CC-Member-Leaving-Time": "1764000095",
        "CC-Member-CID-Name": HOSTILE_NAME,
        "CC-Member-CID-Number": "+49301234567",
    }
    return headers | {name.replace("_", "-"): value for name, value in changes.items()}


def run_lua(script: str, *events: dict[str, str]) -> None:
    """Run a Lua script as FreeSWITCH does, and give it these events."""
    lua: Any = lua52.LuaRuntime(unpack_returned_tuples=True, encoding="utf-8")
    lua.globals().shell = lambda command, body: subprocess.run(["sh", "-c", command], input=body.encode(), timeout=30)
    lua.globals().events_sent = lua.table_from([lua.table_from(event) for event in events])
    lua.execute("""
        io.popen = function(command, mode)  -- this Lua was built without it
            assert(mode == "w")
            local body = ""
            return {write = function(self, text) body = body .. text end, close = function() shell(command, body) end}
        end
        faults = {}
        freeswitch = {}
        freeswitch.consoleLog = function(level, text) table.insert(faults, text) end
        freeswitch.EventConsumer = function(name, subclass)
            assert(name == "CUSTOM" and subclass == "callcenter::info")
            local index = 0
            return {pop = function(self, blocking)
                index = index + 1
                local headers = events_sent[index]
                return headers and {getHeader = function(self, name) return headers[name] end}
            end}
        end
    """)
    lua.execute(script)
    assert list(lua.globals().faults.values()) == []


def test_freeswitch(app: Flask, snippet: Snippet) -> None:
    not_lost = [
        {"CC-Action": "agent-offering"},
        callcenter_event(CC_Cause="Terminated"),
        callcenter_event(CC_Cancel_Reason="EXIT_WITH_KEY"),
    ]
    run_lua(snippet("freeswitch"), *not_lost, callcenter_event())
    assert recorded(app) == (
        "c6ed915e-743d-4110-a9bb-ac257b0e6274-1764000095",
        "queue.call_lost",
        {
            "queue_number": "8000",
            "caller_number": "+49301234567",
            "caller_name": HOSTILE_NAME,
            "call_id": "c6ed915e-743d-4110-a9bb-ac257b0e6274",
            "waited_seconds": 95,
            "reason": "hangup",
        },
    )
    assert "startup-script" in snippet("freeswitch-startup")


def test_freeswitch_with_a_hidden_number(app: Flask, snippet: Snippet) -> None:
    event = callcenter_event(CC_Member_CID_Number="", CC_Member_CID_Name="", CC_Cancel_Reason="TIMEOUT")
    run_lua(snippet("freeswitch"), event)
    _, _, data = recorded(app)
    assert (data["caller_number"], data["reason"]) == ("anonymous", "timeout")


def test_freeswitch_continues_after_an_event_without_its_headers(app: Flask, snippet: Snippet) -> None:
    incomplete = callcenter_event()
    for name in ("CC-Member-Joined-Time", "CC-Member-Session-UUID", "CC-Member-CID-Name", "CC-Member-CID-Number"):
        del incomplete[name]
    without_queue = {name: value for name, value in incomplete.items() if name != "CC-Queue"}
    run_lua(snippet("freeswitch"), without_queue, incomplete, callcenter_event(CC_Member_Leaving_Time="soon"))
    with app.app_context():
        rows = sql("SELECT data->>'caller_number', data->>'waited_seconds' FROM events ORDER BY id")
    assert rows == [("anonymous", None), ("+49301234567", None)]


def test_freeswitch_continues_if_curl_cannot_be_started(app: Flask, snippet: Snippet) -> None:
    script = snippet("freeswitch").replace("io.popen(post", "(tries and io.popen or fail)(post")
    script = 'fail = function() tries = 1; return nil, "no memory" end\n' + script
    with pytest.raises(AssertionError, match="no memory"):
        run_lua(script, callcenter_event(), callcenter_event())
    assert recorded(app)[1] == "queue.call_lost"


def test_a_tenants_freeswitch_reports_no_call_of_another_tenant(app: Flask, snippet: Snippet) -> None:
    for queue in ("8000@globex.example", "8000@acme.example.evil", "8000", "8000@", "@globex.example"):
        with app.app_context():
            sql("DELETE FROM events")
        run_lua(snippet("freeswitch"), callcenter_event(CC_Queue=queue), callcenter_event(CC_Queue="8001@ACME.example"))
        assert recorded(app)[2]["queue_number"] == "8001", queue


def test_freeswitch_with_a_system_key_reports_each_call_to_its_tenant(
    app: Flask, system: FlaskClient, working_tenant: str, globex: str, snippet: Snippet, portal_url: str
) -> None:
    token = csrf_token(system.get("/system/keys").text)
    page = system.post("/system/keys", data={"csrf_token": token, "name": "All"}).text
    found = re.search(r'<code class="code" id="snippet-freeswitch">(.*?)</code>', page, re.DOTALL)
    assert found
    run_lua(
        html.unescape(found[1]),
        callcenter_event(CC_Queue="8000@globex.example"),
        callcenter_event(CC_Queue="8001@acme.example", CC_Member_Leaving_Time="1764000096"),
    )
    with app.app_context():
        rows = sql("SELECT domain, data->>'queue_number' FROM events JOIN tenants ON tenants.id = tenant_id ORDER BY 1")
    assert rows == [("acme.example", "8001"), ("globex.example", "8000")]


# recordings/freeswitch-05-resumed: the same caller again, in a queue with abandoned-resume-allowed.
RESUMED = [
    {
        "CC-Queue": "8003@acme.example",
        "CC-Action": "member-queue-end",
        "CC-Member-Leaving-Time": leaving,
        "CC-Member-Joined-Time": joined,
        "CC-Cause": "Cancel",
        "CC-Cancel-Reason": "BREAK_OUT",
        "CC-Member-UUID": "fff3223e-0c0b-4be4-a37c-01ef164523f2",
        "CC-Member-Session-UUID": session,
        "CC-Member-CID-Name": "Ana Example",
        "CC-Member-CID-Number": "+442079460123",
    }
    for leaving, joined, session in (
        ("1795867645", "1795867642", "c6ed915e-743d-4110-a9bb-ac257b0e6274"),
        ("1795867650", "1795867646", "fa8a2565-0191-4c83-8849-09dc912422da"),
    )
]


def test_freeswitch_reports_a_caller_who_hangs_up_twice_twice(app: Flask, snippet: Snippet) -> None:
    run_lua(snippet("freeswitch"), *RESUMED)
    with app.app_context():
        rows = sql("SELECT data->>'call_id', data->'waited_seconds' FROM events ORDER BY id")
    assert rows == [(RESUMED[0]["CC-Member-Session-UUID"], 3), (RESUMED[1]["CC-Member-Session-UUID"], 4)]


def test_portsip(app: Flask, snippet: Snippet) -> None:
    payload = {"event_type": "extension_created", "extension_number": "101", "tenant_id": "7"}
    headers = {"Authorization": f"Bearer {snippet('portsip-key')}", "Content-Type": "application/json"}
    request = urllib.request.Request(snippet("portsip"), json.dumps(payload).encode(), headers)
    with urllib.request.urlopen(request) as response:
        assert json.load(response)["events"][0]["status"] == "sent"
    assert recorded(app)[1] == "user.created"


def test_each_make_has_a_snippet(snippet: Snippet) -> None:
    assert all(snippet(name) for name in ADAPTERS)
