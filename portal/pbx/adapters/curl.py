"""curl, for any program that can post JSON."""

from portal.pbx.adapters.adapter import Adapter

ADAPTER = Adapter(name="curl", title="curl")
