"""Every regular expression of the portal takes linear time: each is fed the worst text for its own repetitions."""

import gc
import importlib
import pkgutil
import re
import string
import time
from collections import defaultdict
from collections.abc import Iterator
from re import _constants as op
from re import _parser as parser
from typing import Any

import pytest

import portal
from portal.config import ROOT
from portal.mail_servers.smtp.outcome import ADVICE

pytestmark = pytest.mark.slow

LENGTH = 65_536
SHORT = 4096  # tried first, so that a quadratic expression fails instead of taking minutes
MAX_SECONDS, MAX_SHORT_SECONDS = 0.5, 0.02  # of processor time: a linear one takes a twentieth
REPEATS = {op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT}
MANY = 64
ALPHABET = " \t\n0a-.=@<>[]()\"'/&;:%_#+" + string.ascii_letters
FUNCTIONS = "search|match|fullmatch|sub|split|findall|finditer"


def patterns() -> Iterator[tuple[str, re.Pattern[Any], str]]:
    """Yield the name, the expression and the method that it is used with, of all that a module of the portal has."""
    source = "\n".join(file.read_text() for file in (ROOT / "portal").rglob("*.py"))
    used = defaultdict(set)
    for name, method in re.findall(rf"\b(\w+)\.({FUNCTIONS})\(", source):
        used[name].add(method)
    for name, value in compiled():
        methods = used.get(name.rpartition(".")[2], {"search"})
        yield from ((f"{name}.{method}", value, method) for method in sorted(methods))
    for method, literal in re.findall(rf"\bre\.({FUNCTIONS})\(\s*r?\"((?:[^\"\\]|\\.)+)\"", source):
        yield f"re.{method}({literal})", re.compile(literal), method
    for number, advice in enumerate(ADVICE):
        for expression, method in ((advice.code, "match"), (advice.words, "search")):
            if expression:
                yield f"advice {number} {method}", re.compile(expression, re.IGNORECASE), method


def compiled() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Yield the name and the expression of all that are compiled in a module of the portal."""
    for module in pkgutil.walk_packages(portal.__path__, "portal."):
        if not module.name.endswith(".__main__"):  # importing it would run it
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, re.Pattern):
                    yield f"{module.name}.{name}", value


def sample(tree: Any) -> str:
    """Return a text that a parsed expression matches, nearly always."""
    return "".join(_sample(*node) for node in tree)


def _sample(kind: Any, value: Any) -> str:
    if kind in REPEATS:
        return sample(value[2]) * max(int(value[0]), 1)
    if kind is op.SUBPATTERN:
        return sample(value[-1])
    if kind is op.BRANCH:
        return sample(value[1][0])
    if kind is op.LITERAL:
        return chr(value)
    if kind in (op.IN, op.ANY, op.NOT_LITERAL, op.CATEGORY):
        return next(iter(matching(kind, value)), "")
    return ""


def matching(kind: Any, value: Any) -> list[str]:
    """Return the characters of the alphabet that a set of characters matches."""
    if kind is op.ANY:
        return list(ALPHABET)
    if kind is op.NOT_LITERAL:
        return [char for char in ALPHABET if ord(char) != value]
    compiled = re._compiler.compile(_only(kind, value))  # type: ignore[attr-defined]
    return [char for char in ALPHABET if compiled.match(char)]


def _only(kind: Any, value: Any) -> Any:
    state = parser.State()
    state.str = ""
    return parser.SubPattern(state, [(kind, value)])


def attacks(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield what comes before a repetition, and what it repeats, for each one without a small limit."""
    for kind, value in tree:
        if kind in REPEATS:
            body = value[2]
            if value[1] >= MANY:
                yield prefix, sample(body)
                if len(body) == 1 and body[0][0] in (op.IN, op.ANY, op.NOT_LITERAL):
                    yield from ((prefix, char) for char in matching(*body[0])[:6])
            yield from attacks(body, prefix)
        elif kind is op.SUBPATTERN:
            yield from attacks(value[-1], prefix)
        elif kind is op.BRANCH:
            for branch in value[1]:
                yield from attacks(branch, prefix)
        prefix += _sample(kind, value)


def texts(pattern: re.Pattern[Any], length: int) -> Iterator[str]:
    tree = parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else 0)
    whole = sample(tree)
    pumped = {("", whole), *(("", whole[: end + 1]) for end in range(min(len(whole), 12)))}
    for prefix, body in (pumped | set(attacks(tree))) - {("", "")}:
        if body:
            for start in {"", prefix}:
                yield start + body * (length // len(body)) + "\x00"
            if prefix:
                yield (prefix + body) * (length // len(prefix + body)) + "\x00"


def seconds(pattern: re.Pattern[Any], method: str, text: str) -> float:
    subject = text.encode(errors="replace") if isinstance(pattern.pattern, bytes) else text
    arguments = (subject[:0], subject) if method == "sub" else (subject,)
    gc.disable()  # its time depends on what other tests have left, not on the expression
    try:
        began = time.thread_time()
        result = getattr(pattern, method)(*arguments)
        if method == "finditer":
            list(result)
        return time.thread_time() - began
    finally:
        gc.enable()


def slow_text(pattern: re.Pattern[Any], method: str, length: int, limit: float) -> str | None:
    """Return a text of this length that takes longer than the limit, not only once, or None."""
    return next((text for text in texts(pattern, length) if is_slow(pattern, method, text, limit)), None)


def is_slow(pattern: re.Pattern[Any], method: str, text: str, limit: float) -> bool:
    return all(seconds(pattern, method, text) > limit for _ in range(5))


@pytest.mark.parametrize(("pattern", "method"), [pytest.param(*rest, id=name) for name, *rest in patterns()])
def test_the_worst_text_of_64_kb_takes_linear_time(pattern: re.Pattern[Any], method: str) -> None:
    for length, limit in ((SHORT, MAX_SHORT_SECONDS), (LENGTH, MAX_SECONDS)):
        text = slow_text(pattern, method, length, limit)
        assert text is None, f"{length} characters such as {text[:40]!r} … {text[-20:]!r} take too long"


@pytest.mark.parametrize("quadratic", [r"^\s*#?([245])", r"\S+@\S+", r"<[^>]*>x", r"(mailbox|quota).*(full|over)"])
def test_the_texts_find_a_slow_expression(quadratic: str) -> None:
    pattern = re.compile(quadratic, re.MULTILINE)
    lengths = (SHORT, 2 * SHORT, 4 * SHORT, 8 * SHORT)  # each takes four times as long as the one before
    assert any(slow_text(pattern, "search", length, MAX_SHORT_SECONDS) for length in lengths)
