"""The list of tenants: health, filters, sorting, pages and the CSV file."""

import csv
from collections.abc import Iterator, Sequence
from io import StringIO

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts import service as account_service
from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.mail_servers import service as mail_server_settings
from portal.notifications import recipients, settings
from portal.overview import tenant_list
from portal.overview.tenant_list import SORTABLE, ListedTenant, TenantFilter, TenantList
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.web import pagination
from tests.pages import HTMX, PASSWORD
from tests.sql import sql
from tests.tenant_fixtures import Post, entered

LIST = "/system/tenants"
EVENT = """
    INSERT INTO events (id, tenant_id, external_id, type, occurred_at, received_at, fingerprint, data, is_sample)
    SELECT gen_random_uuid(), id, 'e' || :minutes, 'queue.call_lost', now(), now() - make_interval(mins => :minutes),
        sha256('x'), '{}', :is_sample
    FROM tenants WHERE domain = :domain
"""
MAILS = """
    INSERT INTO deliveries (id, tenant_id, event_id, audience, message_id, status, reason, expires_at, last_attempt_at,
        attempts)
    SELECT gen_random_uuid(), events.tenant_id, min(events.id::text)::uuid, 'recipients', '', :status, :reason,
        now() + interval '1 hour', now(), 1
    FROM events JOIN tenants ON tenants.id = tenant_id AND domain = :domain, generate_series(1, :count) AS n
    GROUP BY events.tenant_id, n
"""


def set_up(domain: str, *, server: bool = True, people: bool = True, events: bool = True) -> Tenant:
    """Add a tenant that can send email, except for what is left out."""
    tenant = tenant_service.add(domain.partition(".")[0].title(), domain, "UTC")
    assert isinstance(tenant, Tenant)
    enter_scope(tenant.id)
    if server:
        mail_server_settings.save(tenant.id, entered(2525))
    if people:
        recipients.replace(tenant, [f"ops@{domain}"])
    if events:
        settings.set_enabled(tenant, EVENT_TYPES, on=True)
    return tenant


def listed(filters: TenantFilter | None = None, sort: str = "name", size: int = 50) -> Sequence[ListedTenant]:
    """Return all tenants in the list, page by page, as many as it counts."""

    def pages() -> Iterator[ListedTenant]:
        key: str | None = ""
        while key is not None:
            page = TenantList(filters or TenantFilter(), sort).page(key, size=size)
            yield from page.rows
            key = page.next_key

    found = list(pages())
    assert len(found) == TenantList(filters or TenantFilter(), sort).count()
    return found


def domains(filters: TenantFilter, sort: str = "name") -> list[str]:
    return [tenant.domain.removesuffix(".example") for tenant in listed(filters, sort)]


def shown(domain: str) -> tuple[str, list[str]]:
    """Return the health and the problems of a tenant."""
    (tenant,) = listed(TenantFilter(text=domain))
    return tenant.health, [sentence for _, sentence in tenant.problems]


@pytest.fixture
def in_request(app: Flask) -> Iterator[None]:
    with app.test_request_context():
        yield


def test_very_many_tenants_are_not_counted(
    system: FlaskClient, acme: str, globex: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "2 tenants" in system.get(LIST).text
    monkeypatch.setattr(tenant_list, "MAX_COUNTED", 1)
    assert "More than 1 tenants" in system.get(LIST).text
    assert "1 tenant" in system.get(f"{LIST}?q=acme").text


def test_health(in_request: None) -> None:
    set_up("working.example")
    set_up("unused.example", server=False, people=False, events=False)
    for name in ("rejected", "paused", "oauth", "failed", "held", "off"):
        set_up(f"{name}.example")
    set_up("nobody.example", people=False)
    set_up("serverless.example", server=False)
    for domain in ("failed.example", "held.example", "off.example"):
        sql(EVENT, domain=domain, minutes=1, is_sample=False)
    sql(MAILS, domain="failed.example", status="failed", reason=None, count=2)
    sql(MAILS, domain="held.example", status="held", reason="throttled", count=3)
    sql(MAILS, domain="off.example", status="held", reason="tenant_suspended", count=1)
    which = "WHERE tenant_id = (SELECT id FROM tenants WHERE domain = :domain)"
    sql(f"UPDATE mail_servers SET rejected_at = now() {which}", domain="rejected.example")
    sql(f"UPDATE mail_servers SET paused_until = now() + interval '1 minute' {which}", domain="paused.example")
    sql(f"UPDATE mail_servers SET auth_mode = 'oauth' {which}", domain="oauth.example")
    sql("UPDATE tenants SET suspended_at = now() WHERE domain = 'off.example'")

    assert shown("working") == ("working", [])
    assert shown("unused") == ("unused", [])
    assert shown("rejected") == ("not_sending", ["Its mail server rejects the settings."])
    assert shown("oauth") == ("not_sending", ["No mailbox is connected to its mail server."])
    assert shown("serverless") == ("not_sending", ["Events are on, but no mail server is set up."])
    assert shown("nobody") == ("not_sending", ["Events are on, but there are no recipients."])
    assert shown("failed") == ("failing", ["2 emails were not delivered in the last 24 hours."])
    assert shown("held") == ("delayed", ["3 emails are held."])
    assert shown("paused") == ("delayed", ["Its mail server is not responding at the moment."])
    assert shown("off.") == ("suspended", [])

    worst_first = ["rejected", "oauth", "serverless", "nobody", "failed", "held", "paused"]
    assert domains(TenantFilter(health="problem"), "health") == worst_first
    assert domains(TenantFilter(), "-health") == ["off", "unused", "working", *worst_first[::-1]]
    assert domains(TenantFilter(health="delayed")) == ["held", "paused"]
    assert domains(TenantFilter(health="suspended")) == ["off"]
    assert domains(TenantFilter(text="h", health="delayed")) == ["held"]
    assert domains(TenantFilter(), "-held")[:2] == ["held", "off"]
    assert domains(TenantFilter(server="none")) == ["serverless", "unused"]
    assert tenant_list.count_dependent() == 1

    mail_server_settings.save(None, entered(2525), shared=True)
    assert domains(TenantFilter(server="shared")) == ["serverless", "unused"]
    assert shown("serverless") == ("working", [])
    sql("UPDATE mail_servers SET rejected_at = now() WHERE tenant_id IS NULL")
    assert shown("serverless") == ("not_sending", ["The system's mail server rejects its settings."])
    assert shown("unused") == ("unused", [])


def test_last_events_and_administrators(in_request: None) -> None:
    for name in ("a", "b", "c"):
        tenant = set_up(f"{name}.example")
        for number in range({"a": 3, "b": 1}.get(name, 0)):
            account_service.add(f"{number}@{name}.example", PASSWORD, tenant_id=tenant.id)
    sql(EVENT, domain="a.example", minutes=9, is_sample=False)
    sql(EVENT, domain="a.example", minutes=1, is_sample=True)
    sql(EVENT, domain="b.example", minutes=5, is_sample=False)
    assert domains(TenantFilter(), "-last_event") == ["b", "a", "c"]
    assert domains(TenantFilter(), "administrators") == ["c", "b", "a"]
    assert domains(TenantFilter(without_administrator=True)) == ["c"]
    assert listed()[0].administrators == ["0@a.example", "1@a.example", "2@a.example"]
    sql("UPDATE accounts SET active = false WHERE email IN ('0@b.example', '1@a.example')")
    assert listed()[0].administrators == ["0@a.example", "2@a.example"]
    assert domains(TenantFilter(without_administrator=True)) == ["b", "c"]


def test_a_search_finds_parts_of_names_and_domains_literally(in_request: None) -> None:
    acme = tenant_service.add("Acme", "acme.example", "UTC")
    assert isinstance(acme, Tenant)
    tenant_service.add("100% Fun_Park", "park.example", "UTC")

    def found(text: str) -> list[str]:
        return domains(TenantFilter(text=text), "-name")

    assert found("") == ["acme", "park"]
    assert found("CME.ex") == found("aCm") == ["acme"]
    assert found("%") == found("fun_p") == ["park"]
    assert found("\\") == found("_x") == found("\0") == []
    assert found("A") == ["acme", "park"]
    assert found("ac") == found("c") == ["acme"]
    tenant_service.edit(acme, "abcbcd", "acme.example", "UTC")
    assert found("cbc") == ["acme"]
    assert found("abcd") == []  # although every three letters of it are in the name


@pytest.mark.parametrize("sort", [sign + name for name in SORTABLE for sign in ("", "-")])
def test_pages_in_each_order_show_each_tenant_once(in_request: None, sort: str) -> None:
    for number in range(5):
        tenant_service.add(("same", "Same", "same", "ä~ö", "Zoë")[number], f"t{number}.example", "UTC")
    sql(EVENT, domain="t3.example", minutes=5, is_sample=False)
    sql(MAILS, domain="t3.example", status="held", reason="throttled", count=2)
    whole = [tenant.domain for tenant in listed(sort=sort)]
    assert sorted(whole) == [f"t{number}.example" for number in range(5)]
    assert [tenant.domain for tenant in listed(sort=sort, size=2)] == whole


def test_so_many_held_emails_are_counted(in_request: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_list, "MAX_HELD", 2)
    set_up("acme.example")
    sql(EVENT, domain="acme.example", minutes=1, is_sample=False)
    sql(MAILS, domain="acme.example", status="held", reason="throttled", count=5)
    assert listed()[0].held_number == "More than 2"
    assert shown("acme") == ("delayed", ["More than 2 emails are held."])


def test_the_page(system: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagination, "PAGE_SIZE", 2)
    with app.app_context():
        for letter in "abc":
            tenant_service.add(letter, f"{letter}.example", "UTC")
    html = system.get(f"{LIST}?health=unused&sort=-name").get_data(as_text=True)
    assert ">3 tenants<" in html
    assert "a.example" not in html
    assert f'href="{LIST}?health=unused&amp;sort=-name&amp;after=b~b.example"' in html
    assert '<th scope="col" aria-sort="descending"><a href="/system/tenants?health=unused&amp;sort=name">' in html
    answer = system.get(f"{LIST}?q=&health=unused&sort=-name&after=b~b.example", headers=HTMX)
    assert answer.headers["HX-Replace-Url"] == f"{LIST}?health=unused&sort=-name"
    assert "First page" in answer.get_data(as_text=True)
    assert "a.example" in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("q=" + "x" * 200, 200, "No tenants match"),
        ("q=" + "x" * 201, 422, "Search not run"),
        ("q=%00", 422, "Search not run"),
        ("q=%25_%5C'", 200, "No tenants match"),
        ("health=nonsense", 422, "Search not run"),
        ("sort=nonsense", 422, "Search not run"),
        ("sort=held&after=nonsense", 200, "acme.example"),
        ("sort=held&after=-1~a", 200, "acme.example"),
        ("after=%00~a", 200, "acme.example"),
        ("sort=held&after=99999999999999999999999~a", 200, "acme.example"),
    ],
)
def test_any_input(system: FlaskClient, acme: str, query: str, status: int, message: str) -> None:
    answer = system.get(f"{LIST}?{query}")
    assert answer.status_code == status
    assert message in answer.get_data(as_text=True)


def test_the_csv_file_has_what_is_filtered(system: FlaskClient, working_tenant: str, globex: str, post: Post) -> None:
    post()
    answer = system.get(f"{LIST}.csv?health=working")
    rows = list(csv.DictReader(StringIO(answer.get_data(as_text=True))))
    assert [(row["domain"], row["health"], row["mail_server"], row["held"]) for row in rows] == [
        (working_tenant, "working", "own", "0")
    ]
    assert rows[0]["last_event_at"]
    assert len(list(csv.reader(StringIO(system.get(f"{LIST}.csv").get_data(as_text=True))))) == 3
    assert system.get(f"{LIST}.csv?health=x").status_code == 400
