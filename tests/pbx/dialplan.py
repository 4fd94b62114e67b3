"""As much of Asterisk as the ready lines ask of it: variables, four functions, expressions, and what a call does.

A value is put in once and never looked at again for variables, as Asterisk does it; a call ends in the extension `h`.
"""

import re
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

LINE = re.compile(r"(?:exten => (?P<exten>\w+),1| same => n)(?:\((?P<label>\w+)\))?,(?P<app>\w+)\((?P<data>.*)\)")
HEADER = "CURLOPT(httpheader)"
OPERATORS: Mapping[str, Callable[[str, str], int]] = {
    " != ": lambda one, other: int(one != other),
    " - ": lambda one, other: int(one) - int(other),
}


@dataclass
class Channel:
    """A caller in a queue."""

    number: str
    name: str
    abandoned: bool
    waited: int = 95
    unique_id: str = "1764000000.42"
    variables: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def value(self, name: str) -> str:
        """Return what `${name}` stands for; what is in it is put in already."""
        function, bracket, arguments = name.partition("(")
        arguments = arguments[: arguments.rindex(")")] if bracket else ""
        match function:
            case "CALLERID":
                return {"num": self.number, "name": self.name}[arguments]
            case "LEN":
                return str(len(arguments))
            case "QUOTE":
                return '"' + arguments.replace("\\", "\\\\").replace('"', '\\"') + '"'
            case "IF":
                condition, _, choices = arguments.partition("?")
                return choices.split(":", 1)[condition == "0"]
            case "CURL":
                return self._post(*arguments.split(",", 1))
        return self.variables.get(name, "")

    def _post(self, url: str, body: str) -> str:
        with urllib.request.urlopen(urllib.request.Request(url, body.encode(), self.headers)) as answer:
            return bytes(answer.read()).decode()

    def fill(self, text: str) -> str:
        """Return the text with its variables and expressions put in."""
        filled = ""
        while text:
            start = text[:2]
            if start in {"${", "$["}:
                inner, text = _inside(text[1:])
                inner = self.fill(inner)
                filled += self.value(inner) if start == "${" else _evaluate(inner)
            else:
                filled, text = filled + text[0], text[1:]
        return filled


def _inside(text: str) -> tuple[str, str]:
    """Return what is between a bracket and the one that closes it, and what comes behind that."""
    opening, depth = text[0], 0
    closing = {"{": "}", "[": "]"}[opening]
    for place, letter in enumerate(text):
        depth += (letter == opening) - (letter == closing)
        if not depth:
            return text[1:place], text[place + 1 :]
    raise ValueError(text)


def _evaluate(expression: str) -> str:
    for operator, result in OPERATORS.items():
        one, found, other = expression.partition(operator)
        if found:
            return str(result(one, other))
    return expression


def run(lines: str, channel: Channel) -> str:
    """Let the channel call 8000, wait, and hang up, and return what the web server said to `h`, if it was asked."""
    found = [match for line in lines.splitlines() if (match := LINE.fullmatch(line))]
    assert len(found) == sum(1 for line in lines.splitlines() if "=>" in line), "each line can be read"
    starts = {match["exten"]: place for place, match in enumerate(found) if match["exten"]}
    now = int(time.time())
    channel.variables |= {"EXTEN": "8000", "EPOCH": str(now - channel.waited), "UNIQUEID": channel.unique_id}
    _go(found[starts["8000"] : starts["h"]], channel)
    channel.variables |= {"EPOCH": str(now), "ABANDONED": "TRUE" if channel.abandoned else ""}
    _go(found[starts["h"] :], channel)
    return channel.variables.get("ANSWER", "")


def _go(steps: list[re.Match[str]], channel: Channel) -> None:
    place = 0
    while place < len(steps):
        app, data = steps[place]["app"], channel.fill(steps[place]["data"])
        place += 1
        if app == "Queue":  # the caller hangs up here, or an agent has answered
            return
        if app == "Set":
            name, _, value = data.partition("=")
            if name == HEADER:
                header, _, value = value.partition(": ")
                channel.headers[header] = value
            channel.variables[name] = value
        elif app == "GotoIf":
            condition, _, label = data.partition("?")
            if condition != "0":
                place = next(there for there, step in enumerate(steps) if step["label"] == label)
