"""Asterisk: its dialplan reports lost calls from the extension `h`, with the function CURL()."""

from portal.pbx.adapters.adapter import Adapter

ADAPTER = Adapter(name="asterisk", title="Asterisk")
