"""What commands print. A terminal obeys control characters, and what is printed may come from anybody."""

import re
from typing import Final, NoReturn

import click

_CONTROL: Final = re.compile("[\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # but for the tab
_LINE_BREAK: Final = re.compile("(\r?\n)")


def echo(line: str, *, err: bool = False) -> None:
    """Print a line, to standard error with `err`."""
    click.echo(visible(line), err=err)


def echo_text(text: str) -> None:
    """Print text with its line breaks. JSON stays the same document: each escape is one of JSON's too."""
    shown = "".join(part if _LINE_BREAK.fullmatch(part) else visible(part) for part in _LINE_BREAK.split(text))
    click.echo(shown, nl=False)


def fail(*lines: str) -> NoReturn:
    """End the command with this message and exit status 1."""
    raise click.ClickException("\n".join(map(visible, lines)))


def visible(text: str) -> str:
    r"""Return text with each control character as an escape, such as `\u001b`."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
