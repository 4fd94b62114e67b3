"""A PBX make that exists only in tests: an adapter and a snippet, as a new make would add them."""

from collections.abc import Mapping, Sequence

from portal.events.parsing import Event, Problem, check_event, parse_json
from portal.pbx.adapters.adapter import Adapter, PayloadFormat, Schema

SNIPPET = """
{% from "pbx/_copyable_code.html" import copyable %}
{% call copyable("snippet-fake", "the snippet for Fake PBX") %}notify {{ endpoint_url }} {{ key }}{% endcall %}
"""
EXAMPLE = {"happening": "abandoned", "queue": "8000", "from": "+442079460123"}


def read(body: str, tenant: str | None) -> Sequence[Event | Problem]:
    payload = parse_json(body)
    if isinstance(payload, Problem):
        return [payload]
    if payload.get("happening") != "abandoned":
        return []
    data = {"queue_number": payload.get("queue"), "caller_number": payload.get("from")}
    return [check_event({"type": "queue.call_lost", "tenant": tenant, "data": data})]


def schemas() -> Mapping[str, Schema]:
    text = {"type": "string", "description": "A number."}
    happening = {"type": "string", "const": "abandoned", "description": "What happened."}
    properties = {"happening": happening, "queue": text, "from": text}
    return {
        "call_abandoned": {
            "type": "object",
            "title": "Fake lost call",
            "description": "A caller hung up in a fake queue.",
            "properties": properties,
            "required": list(properties),
        }
    }


ADAPTER = Adapter(
    name="fake",
    title="Fake PBX",
    payload_format=PayloadFormat(
        media_types=("application/json", "application/vnd.fake+json"),
        authentication="Fake PBX sends the key as a Bearer token.",
        description="Fake PBX knows only lost calls.",
        read=read,
        schemas=schemas,
        examples={"call_abandoned": EXAMPLE},
    ),
)
