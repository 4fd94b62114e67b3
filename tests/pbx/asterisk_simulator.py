"""As much of Asterisk as the snippet needs: variables, four functions, expressions, and what a channel does.

What Queue() leaves in the variables is as recorded from Asterisk.

As in Asterisk, a value that was filled in is not searched for variables again, and a call ends in the extension `h`.
"""

import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

STEP = re.compile(r"(?:exten => (?P<exten>\w+),1| same => n)(?:\((?P<label>\w+)\))?,(?P<app>\w+)\((?P<data>.*)\)")
HEADER_OPTION = "CURLOPT(httpheader)"
OPERATORS: Mapping[str, Callable[[str, str], int]] = {
    " = ": lambda left, right: int(left == right),
    " =~ ": lambda left, right: len(found[0]) if (found := re.search(right.strip('"'), left.strip('"'))) else 0,
}


@dataclass
class Channel:
    """A caller in a queue, and how Queue() ends: by hanging up or being answered if there is no status."""

    number: str
    name: str
    abandoned: bool
    status: str = ""
    waited: str = "95"
    dial_status: str = ""
    unique_id: str = "1764000000.42"
    variables: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def value(self, name: str) -> str:
        """Return the value of `${name}`, whose arguments are filled in already."""
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

    def leaves(self, app: str) -> bool:
        """Set what Queue() or Dial() leaves in the variables. Return whether the call ends there."""
        if app == "Dial":
            self.variables["DIALSTATUS"] = self.dial_status
            return self.dial_status == "ANSWER"
        self.variables |= {"ABANDONED": "TRUE" if self.abandoned else "", "QUEUEWAIT": self.waited}
        if self.status:
            self.variables["QUEUESTATUS"] = self.status
        return not self.status

    def set_variable(self, assignment: str) -> None:
        """Do what Set() does."""
        name, _, value = assignment.partition("=")
        if name == HEADER_OPTION:
            header, _, value = value.partition(": ")
            self.headers[header] = value
        self.variables[name] = value

    def _post(self, url: str, body: str) -> str:
        with urllib.request.urlopen(urllib.request.Request(url, body.encode(), self.headers)) as response:
            return bytes(response.read()).decode()

    def fill_in(self, text: str) -> str:
        """Return the text with its variables and expressions filled in."""
        filled = ""
        while text:
            start = text[:2]
            if start in {"${", "$["}:
                inner, text = _split_brackets(text[1:])
                inner = self.fill_in(inner)
                filled += self.value(inner) if start == "${" else _evaluate(inner)
            else:
                filled, text = filled + text[0], text[1:]
        return filled


def _split_brackets(text: str) -> tuple[str, str]:
    """Return the text between a bracket and the one that closes it, and the text after that."""
    opening, depth = text[0], 0
    closing = {"{": "}", "[": "]"}[opening]
    for index, letter in enumerate(text):
        depth += (letter == opening) - (letter == closing)
        if not depth:
            return text[1:index], text[index + 1 :]
    raise ValueError(text)


def _evaluate(expression: str) -> str:
    for operator, calculate in OPERATORS.items():
        left, found, right = expression.partition(operator)
        if found:
            return str(calculate(left, right))
    return expression


def run(dialplan: str, channel: Channel) -> str:
    """Call extension 8000 until the call ends. Return the response that `h` got, empty if it sent no request."""
    steps = [match for line in dialplan.splitlines() if (match := STEP.fullmatch(line))]
    assert len(steps) == sum(1 for line in dialplan.splitlines() if "=>" in line), "each line is understood"
    starts = {step["exten"]: index for index, step in enumerate(steps) if step["exten"]}
    channel.variables |= {"EXTEN": "8000", "UNIQUEID": channel.unique_id}
    _run_steps(steps[starts["8000"] : starts["h"]], channel)
    _run_steps(steps[starts["h"] :], channel)
    return channel.variables.get("RESPONSE", "")


def _run_steps(steps: list[re.Match[str]], channel: Channel) -> None:
    index = 0
    while index < len(steps):
        app, data = steps[index]["app"], channel.fill_in(steps[index]["data"])
        index += 1
        if app == "ExecIf":
            condition, _, command = data.partition("?")
            app, data = command.removesuffix(")").split("(", 1) if condition != "0" else ("NoOp", "")
        if app in {"Queue", "Dial"}:
            if channel.leaves(app):
                return
        elif app == "Set":
            channel.set_variable(data)
        elif app == "GotoIf":
            condition, _, label = data.partition("?")
            if condition != "0":
                index = next(target for target, step in enumerate(steps) if step["label"] == label)
