"""Guards the project's English: `make lint` runs it, `python -m docs.word_list FILE ...` checks some files only.

It reads docs, templates, comments, docstrings and messages, and prints each place that has a banned word as
`file:line: word → what to write instead`. Inline code in backticks is not read. CONTRIBUTING.md explains the choice of
words; docs/glossary.md has the terms to use.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

# Telephone words mean telephone things only, and each idea has one plain expression.
BANNED = {
    r"anew": "again",
    r"by (itself|themselves)": "automatically, on its own, alone",
    r"(tells?|told|telling) of": "says, shows, reports",
    r"who ha(s|ve) not": "anyone without …",
    r"who wants": "anyone who wants, or name the person",
    r"mend(s|ed|ing)?": "fix; release for held email",
    r"(e-)?mails": "emails",
    r"e-mail": "email",
    r"(goes|go|going|went) out": "is sent",
    r"(of|no) no use": "useless, not needed",
    r"what is of": "what belongs to",
    r"just now": "at the moment",
    r"for good": "permanently",
    r"(is|are) made of": "consists of",
    r"stands?(?!\s(for(?! itself)|alone)\b)": "is",
    r"lets? .{1,30} go on": "releases, continues",
    r"behind (it|them|each|him|her)": "after",
    r"(rejected|refused) calls?": "rejected request",
    r"calls? (was|were|is|are) (rejected|refused)": "request",
    r"ready lines?": "configuration snippet",
    r"dial(s|led|ed|ling|ing)?(?!(\s?plan|\())": "connect; dial a phone number only",
    r"user names?": "username",
    r"yardsticks?": "benchmark",
}
PATTERN = re.compile(
    "|".join(rf"(?P<w{number}>\b{word}\b)".replace(" ", r"\s+") for number, word in enumerate(BANNED)), re.IGNORECASE
)
INSTEAD = list(BANNED.values())

READ = ("*.md", "templates/*", "*.py", "static/*.css", "static/*.js", "*.yml", "*.yaml", "*.toml", "Makefile")
NOT_READ = ("docs/word_list.py",)


def main(names: Sequence[str]) -> int:
    """Print every place with a banned word, and return the exit status."""
    found = 0
    for path in _files(names):
        for line, text in _texts(path):
            for hit in PATTERN.finditer(re.sub(r"`[^`\n]*`", lambda code: " " * len(code[0]), text)):
                place = line + text.count("\n", 0, hit.start())
                print(f"{path}:{place}: {hit[0]} → {INSTEAD[int((hit.lastgroup or 'w0')[1:])]}")
                found += 1
    if found:
        print(f"{found} banned words. See docs/word_list.py.")
    return int(found > 0)


def _files(names: Sequence[str]) -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files", "--", *READ], capture_output=True, text=True, check=True).stdout  # noqa: S603, S607
    for name in listed.splitlines():
        if not name.startswith(NOT_READ) and (not names or name in names):
            yield Path(name)


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Return what is written for people in a file, with the number of the line on which each piece begins."""
    source = path.read_text()
    if path.suffix == ".py":
        yield from _of_python(source, messages=path.parts[0] != "tests")
    elif path.parts[0] == "templates":
        yield 1, re.sub(r"\{([{%]).*?[}%]\}", _strings_of_expression, source, flags=re.DOTALL)
    else:
        yield 1, source


def _of_python(source: str, *, messages: bool) -> Iterator[tuple[int, str]]:
    """Return comments, docstrings and, where asked for, all strings but single words in lower case (keys, names)."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented)]
    docstrings = [body[0].value for body in bodies if body and isinstance(body[0], ast.Expr)]
    for node in ast.walk(tree) if messages else docstrings:
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and (" " in node.value or node.value.istitle())
        ):
            yield node.lineno, node.value


def _strings_of_expression(expression: re.Match[str]) -> str:
    """Return an expression of a template with everything but its strings blanked out."""
    strings = [match.span() for match in re.finditer(r"\"[^\"]*\"|'[^']*'", expression[0])]
    inside = {position for start, end in strings for position in range(start, end)}
    return "".join(c if i in inside or c == "\n" else " " for i, c in enumerate(expression[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
