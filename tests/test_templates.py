"""Rules that all templates keep."""

import re
from pathlib import Path

import pytest
from flask import Flask
from jinja2 import StrictUndefined

from portal.config import ROOT

TEMPLATES = ROOT / "templates"
ALL = sorted(path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*") if path.is_file())
PAGES = [name for name in ALL if "email/" not in name]
# Whose words are translated: folders and files.
ROOMS = (
    "accounts/",
    "audit/",
    "brand/",
    "deliveries/",
    "overview/",
    "mail_servers/",
    "demo/",
    "pbx/",
    "mail_templates/",
    "notifications/",
    "provisioning/",
    "tenants/",
    "_",
    "card.html",
    "error.html",
    "layout.html",
    "workspace.html",
)
# The API reference is English, as what programs are told.
ENGLISH = {"pbx/_contents.html", "pbx/_reference.html", "pbx/reference.html"}
TRANSLATED = [name for name in PAGES if name.startswith(ROOMS) and name.endswith(".html") and name not in ENGLISH]
CODE = re.compile(r"{% call copyable\(.*?{% endcall %}", re.S)
PROPER = {
    "acme.example",
    "CSV",
    "Message-ID",
    "wide",
    "Authentication",
    "Enable",
    "URL",
}  # the last three are fields of PortSIP's
every_template = pytest.mark.parametrize("name", ALL)
every_page = pytest.mark.parametrize("name", PAGES)


def _text(name: str) -> str:
    """The template without its comments."""
    return re.sub(r"{#.*?#}", "", Path(TEMPLATES, name).read_text(), flags=re.S)


@every_template
def test_it_compiles_and_what_it_names_exists(built_app: Flask, name: str) -> None:
    environment = built_app.jinja_env
    assert environment.undefined is StrictUndefined
    environment.get_template(name)
    for _, _, other in re.findall(r"{%-?\s*(extends|include|from|import)\s+(['\"])(.+?)\2", _text(name)):
        assert other in ALL, f"{name} names {other}, which is no template"


@every_template
def test_it_escapes_everything(name: str) -> None:
    assert not re.search(r"\|\s*safe\b|autoescape\s+false", _text(name))


@every_page
def test_it_has_no_inline_script_or_style(name: str) -> None:
    text = _text(name)
    assert not re.search(r"\sstyle\s*=|<style\b", text), "a style belongs into static/app.css or pages.css"
    assert not re.search(r"<script(?![^>]*\ssrc=)", text), "a script belongs into static/"
    assert not re.search(r"\s(on[a-z]+|hx-on[a-z:-]*)\s*=|javascript:|hx-vals=['\"]js", text), (
        "the policy forbids handlers"
    )


@every_page
def test_it_loads_nothing_from_elsewhere(name: str) -> None:
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*(src|href)=['\"](https?:)?//", _text(name))


@every_page
def test_each_form_that_posts_has_a_token(name: str) -> None:
    for form in re.findall(r"<form\b.*?</form>", _text(name), flags=re.S):
        opening = re.sub(r"{%.*?%}|{{.*?}}", "", form, flags=re.S).partition(">")[0]
        if re.search(r"method=['\"]post|hx-(post|put|patch|delete)", opening, flags=re.I):
            assert re.search(r"hidden_tag\(\)|csrf_token", form), form


@every_page
def test_its_ids_stand_once(name: str) -> None:
    ids = re.findall(r"\sid=['\"]([\w-]+)['\"]", _text(name))
    assert len(ids) == len(set(ids))


@every_page
def test_its_icons_exist(name: str) -> None:
    drawn = set(re.findall(r'<symbol id="([\w-]+)"', (ROOT / "static/icons.svg").read_text()))
    assert set(re.findall(r"icon\(['\"]([\w-]+)['\"]\)", _text(name))) <= drawn


@pytest.mark.parametrize("name", TRANSLATED)
def test_its_words_are_translated(name: str) -> None:
    text = re.sub(r"{%.*?%}|{{.*?}}", "", CODE.sub("", _text(name)), flags=re.S)
    shown = re.findall(r"\s(?:aria-label|alt|placeholder|title)=\"([^\"]*)\"", text)
    shown += re.sub(r"<[^>]*>", "\n", text).splitlines()
    bare = [words for words in shown if re.search(r"[A-Za-z]{3,}", words) and words.strip() not in PROPER]
    assert not bare, f"put {bare} between {{{{ _(…) }}}}: see docs/development.md"


def test_there_are_templates() -> None:
    assert "layout.html" in PAGES
    assert "accounts/email/reset_notice.txt" in ALL
