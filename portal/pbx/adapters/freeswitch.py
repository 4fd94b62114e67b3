"""FreeSWITCH: a Lua script listens to the events of mod_callcenter and reports lost calls with curl."""

from portal.pbx.adapters.adapter import Adapter

ADAPTER = Adapter(name="freeswitch", title="FreeSWITCH")
