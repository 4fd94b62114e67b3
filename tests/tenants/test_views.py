"""The system administrator's pages of tenants, and the way into a workspace."""

import re
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.commands.group import unwrap
from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.mail_servers import service as mail_server_settings
from portal.notifications import recipients, settings
from portal.overview.tenant_list import TenantFilter, TenantList
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from portal.tenants.forms import RESERVED
from portal.transfer import csv_import
from tests.conftest import SignIn
from tests.overview.page_text import page_text
from tests.pages import HTMX, post
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import Post, entered, key, peer, working_tenant
from tests.tenant_fixtures import post as post_event

__all__ = ["key", "peer", "post_event", "working_tenant"]

LIST, NEW = "/system/tenants", "/system/tenants/new"
GOOD: dict[str, Any] = {"name": "Initech", "domain": "initech.example", "time_zone": "Europe/Berlin"}


def text_of(browser: FlaskClient, path: str) -> str:
    return browser.get(path, follow_redirects=True).get_data(as_text=True)


def test_a_tenant_is_added_and_edited(app: Flask, system: FlaskClient) -> None:
    answer = post(system, NEW, **GOOD)
    assert (answer.status_code, answer.location) == (303, f"{LIST}/initech.example/next-steps")
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


def test_no_page_hides_a_tenants(app: Flask) -> None:
    """Such a page's name is reserved, so that no tenant has it."""
    pages = [rule for rule in app.url_map.iter_rules() if not rule.arguments]
    hidden = set()
    for rule in app.url_map.iter_rules():
        if "domain" in rule.arguments:
            before, _, after = rule.rule.partition("<domain>")
            for page in pages:
                if page.rule.startswith(before) and page.rule.endswith(after):
                    hidden.add(page.rule[len(before) : len(page.rule) - len(after)])
    assert {name for name in hidden if name and "/" not in name} == RESERVED


def test_a_tenant_with_a_reserved_name_keeps_it(app: Flask, system: FlaskClient, acme: str) -> None:
    with app.app_context():
        sql("UPDATE tenants SET domain = 'new' WHERE domain = :domain", domain=acme)
        (changed,) = unwrap(csv_import.preview(b"domain,name\nnew,Newer\n")).changed
        assert changed.settings == {"name": ("Acme", "Newer")}
    assert system.get("/tenants/new/deliveries").status_code == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "Enter the tenant's name."),
        ({"name": "n" * 101}, "100"),
        ({"domain": "new"}, "“new” is reserved."),
        ({"domain": "Import."}, "“import” is reserved."),
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
        assert TenantList(TenantFilter()).count() == 1
        assert tenant_service.find(acme)


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
    page = text_of(system, f"{LIST}?q=<b>")
    assert "No tenants match these filters." in page
    assert 'value="&lt;b&gt;"' in page


def test_without_tenants_the_page_leads_to_adding_one(system: FlaskClient) -> None:
    html = text_of(system, LIST)
    assert "No tenant yet" in html
    assert f'href="{NEW}"' in html


def test_suspending_asks_first_and_can_be_undone(
    system: FlaskClient, app: Flask, working_tenant: str, post_event: Post
) -> None:
    page = f"{LIST}/{working_tenant}"
    assert f'href="{page}/suspend"' in text_of(system, page)
    with app.app_context():
        sql("DELETE FROM mail_servers")
    assert post_event().json["status"] == "held"
    question = page_text(system, f"{page}/suspend")
    assert "Suspend Acme?" in question
    assert "Events that send email 5 Last event" in question
    assert "1, which stay held until you resume or they expire" in question
    assert "Suspended" not in text_of(system, f"/tenants/{working_tenant}/notifications")  # asking changes nothing
    assert post(system, f"{page}/suspend").location == page
    after = text_of(system, page)
    assert "Suspended" in after
    assert re.search(rf'<form method="post" action="{page}/resume">.*?>Undo</button>', after, re.DOTALL)
    assert system.post(f"{page}/resume").status_code == 400  # without a CSRF token
    assert "Suspended" in text_of(system, f"/tenants/{working_tenant}/notifications")
    assert post(system, page, f"{page}/resume").location == page
    assert "Suspended" not in text_of(system, f"/tenants/{working_tenant}/notifications")


def test_a_new_tenant_leads_to_its_next_steps(system: FlaskClient, app: Flask, peer: SmtpPeer, sign_in: SignIn) -> None:
    post(system, NEW, **GOOD | {"language": "fr"})
    page, workspace = f"{LIST}/initech.example/next-steps", "/tenants/initech.example"
    assert "0 of 5 steps done" in page_text(system, page)
    links = re.findall(r'id="step-[\w-]+" href="([^"]+)"', text_of(system, page))
    assert links == [
        f"{workspace}/{name}" for name in ("people", "mail-server", "recipients", "notifications", "connect")
    ]
    sign_in("boss@initech.example", administers="initech.example")
    with app.app_context():
        tenant = tenant_service.find("initech.example")
        assert tenant
        assert tenant.language == "fr"
        enter_scope(tenant.id)
        mail_server_settings.save(tenant.id, entered(peer.port))
        recipients.replace(tenant, ["ops@initech.example"])
        settings.set_enabled(tenant, EVENT_TYPES, on=True)
        api_keys.issue(tenant)
    assert "4 of 5 steps done" in page_text(system, page)
    assert "boss@initech.example." in page_text(system, page)


def test_a_new_tenant_starts_like_the_one_before_and_in_the_language_of_the_page(
    system: FlaskClient, acme: str
) -> None:
    html = system.get(NEW, headers={"Accept-Language": "fr"}).get_data(as_text=True)
    assert '<option selected value="Europe/Berlin">' in html
    assert '<option lang="fr" selected value="fr">' in html
    assert 'data-from-browser="time-zone"' in html
    assert "data-from-browser" not in text_of(system, f"{LIST}/{acme}")


def test_a_system_administrator_in_a_workspace_has_a_way_back(system: FlaskClient, acme: str) -> None:
    assert f'href="/tenants/{acme}/"' in text_of(system, LIST)
    html = text_of(system, f"/tenants/{acme}/")
    assert "You are managing <strong>Acme</strong>" in html
    assert f'href="{LIST}"' in html


def test_the_way_back_leads_to_the_same_place(system: FlaskClient, acme: str) -> None:
    system.get(f"{LIST}?q=acme&health=unused&sort=-held&after=7~zzz&nonsense=1")
    place = f"{LIST}?after=7~zzz&amp;health=unused&amp;q=acme&amp;sort=-held"
    assert f'href="{place}"' in text_of(system, f"/tenants/{acme}/recipients")
    assert f'href="{place}"' in text_of(system, f"{LIST}/{acme}")
    assert post(system, f"{LIST}/{acme}", **GOOD | {"domain": acme}).location == unescape(place)
    system.get(f"{LIST}?health=nonsense")  # not a place
    assert f'href="{place}"' in text_of(system, f"/tenants/{acme}/recipients")


def test_a_tenant_administrator_sees_no_link_to_the_system(admin: FlaskClient, acme: str) -> None:
    html = text_of(admin, f"/tenants/{acme}/")
    assert "You are managing" not in html
    assert LIST not in html


def test_for_others_the_pages_do_not_exist(admin: FlaskClient, acme: str) -> None:
    own = f"/tenants/{acme}/notifications"
    for path in (LIST, f"{LIST}.csv", NEW, f"{LIST}/{acme}", f"{LIST}/{acme}/next-steps", f"{LIST}/{acme}/suspend"):
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
    assert "Suspended" not in text_of(system, f"/tenants/{acme}/overview")


def test_an_account_without_a_tenant_sees_what_to_do(sign_in: SignIn) -> None:
    assert "Ask your system administrator" in text_of(sign_in("new@acme.example"), "/")


def test_an_account_with_one_tenant_is_redirected_to_its_workspace(admin: FlaskClient, acme: str) -> None:
    assert admin.get("/").location == f"/tenants/{acme}/"
