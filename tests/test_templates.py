"""Rules that all templates keep."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from jinja2 import StrictUndefined
from sqlalchemy import text

from portal.config import ROOT
from portal.extensions import db
from tests.render_guard import assert_no_sql_while_rendering

TEMPLATES = ROOT / "templates"
ALL = sorted(path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*") if path.is_file())
PAGES = [name for name in ALL if "email/" not in name]
# Whose words are translated: folders and files.
ROOMS = (
    "accounts/",
    "alerts/",
    "audit/",
    "deliveries/",
    "overview/",
    "mail_servers/",
    "demo/",
    "pbx/",
    "mail_templates/",
    "notifications/",
    "people/",
    "provisioning/",
    "tenants/",
    "_",
    "card.html",
    "error.html",
    "layout.html",
    "workspace.html",
)
# The API reference is English, as what programs are told.
ENGLISH = {"pbx/_api_reference_contents.html", "pbx/_api_reference_macros.html", "pbx/api_reference.html"}
TRANSLATED = [name for name in PAGES if name.startswith(ROOMS) and name.endswith(".html") and name not in ENGLISH]
CODE = re.compile(r"{% call copyable\(.*?{% endcall %}", re.S)
PROPER = {
    "acme.example",
    "CSV",
    "pbx-portal single-sign-on break-glass EMAIL on",
    "Message-ID",
    "wide",
    "Authentication",
    "Enable",
    "URL",
}  # the last three are fields of PortSIP's
NO_INLINE = {
    r"\sstyle\s*=|<style\b": "a style belongs into static/app.css or pages.css",
    r"<script(?![^>]*\ssrc=)": "a script belongs into static/",
    r"\s(on[a-z]+|hx-on[a-z:-]*)\s*=|javascript:|hx-vals=['\"]js": "the policy forbids handlers",
}


def _text(name: str) -> str:
    """The template without its comments."""
    return re.sub(r"{#.*?#}", "", Path(TEMPLATES, name).read_text(), flags=re.S)


def _assert_no_faults(names: Iterable[str], faults: Callable[[str], Iterable[str]]) -> None:
    """Fail with every fault of every template, not only with the first one."""
    found = [f"{name}: {fault}" for name in names for fault in faults(_text(name))]
    assert not found, "\n".join(found)


def test_they_compile_and_what_they_name_exists(built_app: Flask) -> None:
    environment = built_app.jinja_env
    assert environment.undefined is StrictUndefined
    for name in ALL:
        environment.get_template(name)

    def faults(text: str) -> Iterator[str]:
        for _, _, other in re.findall(r"{%-?\s*(extends|include|from|import)\s+(['\"])(.+?)\2", text):
            if other not in ALL:
                yield f"names {other}, which is no template"

    _assert_no_faults(ALL, faults)


def test_they_escape_everything() -> None:
    _assert_no_faults(ALL, lambda text: re.findall(r"\|\s*safe\b|autoescape\s+false", text))


def test_they_have_no_inline_script_or_style() -> None:
    _assert_no_faults(PAGES, lambda text: [rule for pattern, rule in NO_INLINE.items() if re.search(pattern, text)])


def test_they_load_nothing_from_elsewhere() -> None:
    pattern = r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=['\"](?:https?:)?//"
    _assert_no_faults(PAGES, lambda text: re.findall(pattern, text))


def test_each_form_that_posts_has_a_token() -> None:
    def faults(text: str) -> Iterator[str]:
        for form in re.findall(r"<form\b.*?</form>", text, flags=re.S):
            opening = re.sub(r"{%.*?%}|{{.*?}}", "", form, flags=re.S).partition(">")[0]
            posts = re.search(r"method=['\"]post|hx-(post|put|patch|delete)", opening, flags=re.I)
            if posts and not re.search(r"hidden_tag\(\)|csrf_token", form):
                yield form

    _assert_no_faults(PAGES, faults)


def test_their_ids_stand_once() -> None:
    def faults(text: str) -> Iterator[str]:
        ids = re.findall(r"\sid=['\"]([\w-]+)['\"]", text)
        return (f"the id {id_} stands more than once" for id_ in set(ids) if ids.count(id_) > 1)

    _assert_no_faults(PAGES, faults)


def test_their_icons_exist() -> None:
    drawn = set(re.findall(r'<symbol id="([\w-]+)"', (ROOT / "static/icons.svg").read_text()))
    _assert_no_faults(PAGES, lambda text: set(re.findall(r"icon\(['\"]([\w-]+)['\"]\)", text)) - drawn)


def test_their_words_are_translated() -> None:
    def faults(text: str) -> Iterator[str]:
        text = re.sub(r"{%.*?%}|{{.*?}}", "", CODE.sub("", text), flags=re.S)
        shown = re.findall(r"\s(?:aria-label|alt|placeholder|title)=\"([^\"]*)\"", text)
        shown += re.sub(r"<[^>]*>", "\n", text).splitlines()
        bare = [words for words in shown if re.search(r"[A-Za-z]{3,}", words) and words.strip() not in PROPER]
        if bare:
            yield f"put {bare} between {{{{ _(…) }}}}: see CONTRIBUTING.md"

    _assert_no_faults(TRANSLATED, faults)


def test_there_are_templates() -> None:
    assert "layout.html" in PAGES
    assert "accounts/email/message.txt" in ALL


def test_a_template_that_runs_sql_is_noticed(context: Flask) -> None:
    context.jinja_env.globals["count"] = lambda: db.session.execute(text("SELECT count(*) FROM tenants"))
    try:
        context.jinja_env.from_string("{{ count() }}").render()
        with pytest.raises(AssertionError, match="runs SQL"):
            assert_no_sql_while_rendering()
    finally:
        del context.jinja_env.globals["count"]
