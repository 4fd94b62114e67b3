"""The makes of PBXs for which there are ready lines: each has its own in `templates/pbx/lines/`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Make:
    """A make of PBX, or a tool that passes for one."""

    name: str
    title: str

    @property
    def lines(self) -> str:
        """The template of its lines."""
        return f"pbx/lines/_{self.name}.html"


MAKES = (
    Make("curl", "curl"),
    Make("asterisk", "Asterisk"),
    Make("freeswitch", "FreeSWITCH"),
    Make("portsip", "PortSIP"),
)


def find(name: str | None) -> Make:
    """Return the make of this name, else the first one."""
    return next((make for make in MAKES if make.name == name), MAKES[0])
