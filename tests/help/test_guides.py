"""The guides: links lead somewhere, each page links to a section, and operators' guides are for operators."""

import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts.access import is_public
from portal.config import ROOT
from portal.help.guides import GUIDES, Guide, anchor_of, docs_folder, guide_page
from portal.help.topics import SYSTEM_TOPICS, TOPICS, topic_of
from tests.security.test_routes import address

FILES = [*docs_folder().rglob("*.md"), *ROOT.glob("*.md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
HELP_LINK = re.compile(r'<a class="help-link" href="([^"]+)"')


def anchors(file: Path) -> set[str]:
    return {
        anchor_of(re.sub(r"[`*]", "", line.lstrip("# "))) for line in file.read_text().splitlines() if line[:1] == "#"
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_link_in_the_docs_is_dead(file: Path) -> None:
    for href in LINK.findall(CODE.sub("", file.read_text())):
        path, _, anchor = href.partition("#")
        if not href.startswith(("http:", "https:", "mailto:")):
            linked = (file.parent / path).resolve() if path else file
            assert linked.exists(), href
            assert not anchor or anchor in anchors(linked), href


@pytest.mark.parametrize("guide", GUIDES.values(), ids=lambda guide: str(guide.name))
@pytest.mark.parametrize("to_operators", [False, True])
def test_a_link_in_a_guide_leads_to_a_guide_that_its_reader_sees(guide: Guide, to_operators: bool) -> None:
    page = guide_page(guide, to_operators=to_operators)
    ids = re.findall(r' id="([^"]*)"', page.content)
    assert len(ids) == len(set(ids))
    assert {heading.anchor for heading in page.headings} == set(ids)
    assert "<img" not in page.content
    for href in re.findall(r'href="([^"]*)"', page.content):
        name, _, anchor = href.partition("#")
        if not href.startswith("http"):
            linked = GUIDES[name] if name else guide
            assert to_operators or not linked.is_for_operators or linked == guide
            headings = guide_page(linked, to_operators=to_operators).headings
            assert not anchor or anchor in {heading.anchor for heading in headings}, href


def test_each_topic_is_a_section_of_a_guide() -> None:
    for topic in {*TOPICS.values(), *SYSTEM_TOPICS.values()}:
        name, _, anchor = topic.partition("#")
        page = guide_page(GUIDES[name], to_operators=True)
        assert not anchor or anchor in {heading.anchor for heading in page.headings}, topic


def test_operators_guides_are_seen_by_system_administrators_alone(
    client: FlaskClient, admin: FlaskClient, system: FlaskClient
) -> None:
    for guide in GUIDES.values():
        found = [browser.get(f"/help/{guide.name}").status_code for browser in (client, admin, system)]
        assert found == ([404, 404, 200] if guide.is_for_operators else [200, 200, 200]), guide.name
        listed = [f'href="/help/{guide.name}"' in browser.get("/help/").text for browser in (client, admin, system)]
        assert listed == [status == 200 for status in found]
    assert 'href="operation"' not in admin.get("/help/mail-providers").text


def test_a_guide_is_english_in_every_language(admin: FlaskClient) -> None:
    page = admin.get("/help/oauth", headers={"Accept-Language": "de"}).text
    assert '<html lang="de">' in page
    assert re.search(r'<div lang="en">\s*<header class="page-header">', page)


def test_there_is_no_other_file(system: FlaskClient) -> None:
    for name in ("architecture", "..%2fREADME", "oauth.md", "a%00b"):
        assert system.get(f"/help/{name}").status_code == 404


@pytest.mark.slow
def test_each_page_links_to_a_section_that_exists(
    app: Flask, client: FlaskClient, system: FlaskClient, admin: FlaskClient, acme: str
) -> None:
    seen, helped = set(), {}
    for rule in app.url_map.iter_rules():
        if "GET" not in (rule.methods or ()) or "static" in rule.endpoint:
            continue
        browser = client if is_public(app, rule.endpoint) else system if rule.rule.startswith("/system") else admin
        answer = browser.get(address(rule.rule, acme))
        if "<main" in answer.text:
            links = HELP_LINK.findall(answer.text)
            assert links, f"{rule.rule}: {answer.status}"
            seen.add(rule.endpoint)
            helped[links[0]] = browser
    assert len(seen) > 25
    for url, browser in helped.items():
        path, _, anchor = url.partition("#")
        page = browser.get(path)
        assert page.status_code == 200, url
        assert not anchor or f' id="{anchor}"' in page.text, url
    without = {endpoint for endpoint in seen if not topic_of(endpoint, of_tenant=True)}
    assert {endpoint.partition(".")[0] for endpoint in without} <= {"help", "health", "webhook", "doctor"}
