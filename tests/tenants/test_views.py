"""The system administrator's pages of tenants, and the way into a workspace."""

from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.tenants import service as tenant_service
from portal.web import pagination
from tests.conftest import SignIn
from tests.pages import HTMX, post

LIST, NEW = "/system/tenants", "/system/tenants/new"
GOOD: dict[str, Any] = {"name": "Initech", "domain": "initech.example", "time_zone": "Europe/Berlin"}


def text_of(browser: FlaskClient, path: str) -> str:
    return browser.get(path, follow_redirects=True).get_data(as_text=True)


def test_a_tenant_is_added_and_edited(app: Flask, system: FlaskClient) -> None:
    answer = post(system, NEW, **GOOD)
    assert (answer.status_code, answer.location) == (303, LIST)
    assert "initech.example" in text_of(system, LIST)
    answer = post(
        system, f"{LIST}/initech.example", **GOOD | {"name": "Initrode", "time_zone": "UTC", "realm": "asterisk"}
    )
    assert answer.status_code == 303
    with app.app_context():
        tenant = tenant_service.find("initech.example")
        assert tenant is not None
        assert (tenant.name, tenant.time_zone, tenant.realm) == ("Initrode", "UTC", "asterisk")
    post(system, f"{LIST}/initech.example", **GOOD)
    with app.app_context():
        tenant = tenant_service.find("initech.example")
        assert tenant is not None
        assert (tenant.name, tenant.realm) == ("Initech", None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "Enter the tenant's name."),
        ({"name": "n" * 101}, "100"),
        ({"name": "Ini\x00tech"}, "Control characters"),
        ({"domain": ""}, "Enter the tenant's SIP domain"),
        ({"domain": "not a domain"}, "is not a domain name"),
        ({"domain": "initech.example\r\nx"}, "Control characters"),
        ({"domain": "Acme.Example"}, "Another tenant already has this domain."),
        ({"realm": "r" * 201}, "200"),
        ({"time_zone": "Mars/Olympus"}, "Choose one of the options."),
    ],
    ids=lambda case: "-".join(case) if isinstance(case, dict) else "",
)
def test_invalid_values_are_marked_and_nothing_is_added(
    app: Flask, system: FlaskClient, acme: str, changes: dict[str, str], message: str
) -> None:
    answer = post(system, NEW, **GOOD | changes)
    assert answer.status_code == 422
    assert message in unescape(answer.get_data(as_text=True))
    with app.app_context():
        assert [tenant.domain for tenant in tenant_service.search().rows] == [acme]


def test_the_domain_of_another_tenant_is_refused(app: Flask, system: FlaskClient, acme: str, globex: str) -> None:
    answer = post(system, f"{LIST}/{globex}", **GOOD | {"domain": acme})
    assert answer.status_code == 422
    assert "Another tenant already has this domain." in answer.get_data(as_text=True)
    with app.app_context():
        tenant = tenant_service.find(globex)
        assert tenant is not None
        assert tenant.name == "Globex"


def test_htmx_gets_only_the_list(system: FlaskClient, acme: str, globex: str) -> None:
    html = system.get(f"{LIST}?q=glob", headers=HTMX).get_data(as_text=True)
    assert html.lstrip().startswith('<div id="tenants">')
    assert globex in html
    assert acme not in html
    page = text_of(system, f"{LIST}?q=glob")
    assert 'value="glob"' in page
    assert acme not in page


def test_a_search_without_a_match(system: FlaskClient, acme: str) -> None:
    assert "No tenant found" in text_of(system, f"{LIST}?q=<b>")
    assert "“&lt;b&gt;”" in text_of(system, f"{LIST}?q=<b>")


def test_without_tenants_the_page_leads_to_adding_one(system: FlaskClient) -> None:
    html = text_of(system, LIST)
    assert "No tenant yet" in html
    assert f'href="{NEW}"' in html


def test_more_tenants_than_a_page(system: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagination, "PAGE_SIZE", 2)
    with app.app_context():
        for letter in "abc":
            tenant_service.add(letter, f"{letter}.example", "UTC")
    first = text_of(system, LIST)
    assert "c.example" not in first
    assert f'href="{LIST}?after=b.example"' in first
    second = text_of(system, f"{LIST}?after=b.example")
    assert "c.example" in second
    assert "First page" in second


def test_a_tenant_is_suspended_and_resumed(system: FlaskClient, acme: str) -> None:
    page = f"{LIST}/{acme}"
    assert post(system, page, f"{page}/suspend").location == page
    assert "Suspended" in text_of(system, LIST)
    assert "Suspended" in text_of(system, f"/tenants/{acme}/notifications")
    assert post(system, page, f"{page}/resume").location == page
    assert "Suspended" not in text_of(system, LIST)


def test_a_system_administrator_in_a_workspace_has_a_way_back(system: FlaskClient, acme: str) -> None:
    assert f'href="/tenants/{acme}/"' in text_of(system, LIST)
    html = text_of(system, f"/tenants/{acme}/")
    assert "You are managing <strong>Acme</strong>" in html
    assert f'href="{LIST}"' in html


def test_a_tenant_administrator_sees_no_link_to_the_system(admin: FlaskClient, acme: str) -> None:
    html = text_of(admin, f"/tenants/{acme}/")
    assert "You are managing" not in html
    assert LIST not in html


def test_for_others_the_pages_do_not_exist(admin: FlaskClient, acme: str) -> None:
    own = f"/tenants/{acme}/notifications"
    for path in (LIST, NEW, f"{LIST}/{acme}"):
        assert admin.get(path).status_code == 404
    for path in (NEW, f"{LIST}/{acme}", f"{LIST}/{acme}/suspend", f"{LIST}/{acme}/resume"):
        assert post(admin, own, path, **GOOD).status_code == 404


def test_an_unknown_tenant(system: FlaskClient, acme: str) -> None:
    assert system.get(f"{LIST}/nobody.example").status_code == 404
    assert system.get("/tenants/nobody.example/notifications").status_code == 404
    assert post(system, LIST + f"/{acme}", f"{LIST}/nobody.example/suspend").status_code == 404


@pytest.mark.parametrize("path", [NEW, f"{LIST}/acme.example", f"{LIST}/acme.example/suspend"])
def test_a_post_without_a_csrf_token_is_rejected(system: FlaskClient, acme: str, path: str) -> None:
    assert system.post(path, data=GOOD).status_code == 400
    assert "Suspended" not in text_of(system, LIST)


def test_an_account_without_a_tenant_sees_what_to_do(sign_in: SignIn) -> None:
    assert "Ask your system administrator" in text_of(sign_in("new@acme.example"), "/")


def test_an_account_with_one_tenant_is_redirected_to_its_workspace(admin: FlaskClient, acme: str) -> None:
    assert admin.get("/").location == f"/tenants/{acme}/"
