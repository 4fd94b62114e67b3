"""The adapters in the order of their tabs on the page "Connect a PBX". To add a make, add its adapter here."""

from collections.abc import Iterator

from portal.pbx.adapters import asterisk, curl, freeswitch, portsip
from portal.pbx.adapters.adapter import Adapter, PayloadFormat

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter for adapter in (curl.ADAPTER, asterisk.ADAPTER, freeswitch.ADAPTER, portsip.ADAPTER)
}


def payload_formats() -> Iterator[tuple[Adapter, PayloadFormat]]:
    """Return the adapters that have payloads of their own, with the payloads' format."""
    return ((adapter, adapter.payload_format) for adapter in ADAPTERS.values() if adapter.payload_format)
