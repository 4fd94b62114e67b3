"""What the demo says when it has started."""

import json
import shlex

from portal.demo.data import SYSTEM_ADMINISTRATOR, TENANT_ADMINISTRATOR, Access

EVENT = {
    "type": "queue.call_lost",
    "data": {"queue_number": "8000", "queue_name": "Support", "caller_number": "+442079460123", "waited_seconds": 90},
}
ROLES = {SYSTEM_ADMINISTRATOR: "System administrator", TENANT_ADMINISTRATOR: "Administrator of Acme"}
CHANGED = "(the password that it was changed to)"


def screen(url: str, access: Access) -> str:
    """Return one screen: where things are, who can sign in, and how to report an event."""
    rows = [("Portal", url)]
    rows += [(ROLES[email], f"{email}  {password or CHANGED}") for email, password in access.passwords.items()]
    rows += [("Caught mail", f"{url}/demo/mail")]
    lines = [f"  {name:<23}{value}" for name, value in rows]
    if access.key:
        lines += ["", "  Report a lost call, as a PBX does:", "", f"  {curl(url, access.key)}"]
    return "\n".join(["", *lines, "", "  Ctrl-C ends it. The data stays for the next time.", ""])


def curl(url: str, key: str) -> str:
    """Return a command line that reports an event."""
    arguments = {"-H": f"Authorization: Bearer {key}", "-d": json.dumps(EVENT)}
    options = " ".join(f"{option} {shlex.quote(value)}" for option, value in arguments.items())
    return f"curl {url}/api/v1/events -H 'Content-Type: application/json' {options}"
