"""The door: every route asks a stranger to sign in, except those that are public on purpose."""

import re
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts.access import is_public
from tests.pages import csrf_token, post

pytestmark = pytest.mark.slow

# Each with the reason why a stranger is answered.
PUBLIC = {
    "health.readyz",  # a monitor has no account
    "metrics.metrics",  # the token in its header is the proof
    "doctor.show_request",  # the signed token in the address is the proof; without it 404
    *("invitation.show", "invitation.accept"),  # the token in the address is the proof; without it 404
    *("account.show_email_change", "account.confirm_email"),  # the same
    "provisioning.provision",  # the token in the address is the proof
    # The token in the URL is the proof.
    *(f"email_settings.{name}" for name in ("own", "save", "pause_own", "resume_own", "send_link", "unsubscribe")),
    "webhook.receive_event",  # the key is the proof
    "webhook.receive_payload",  # the same
    "webhook.openapi",  # tells nothing but the interface
    "api_reference.show",  # the same as a page
    "single_sign_on.begin",  # it is the way in
    "single_sign_on.finish",  # the same
    "help.index",  # guides without a word about this installation
    "help.show",  # the same
}
LARGEST = str(2**31 - 1)  # id of a row
TOKEN = re.compile(r"[\w-]+\.[\w-]{6}\.[\w-]{20,}")  # which is another one in each second


def address(rule: str, domain: str) -> str:
    """Return an address of the rule, in the tenant with this domain."""
    path = re.sub(r"<[^>]*domain>", domain, rule)
    path = re.sub(r"<uuid:[^>]*>", str(UUID(int=1)), re.sub(r"<int:[^>]*>", "1", path))
    return re.sub(r"<[^>]*>", "queue.call_lost", path)


def test_only_known_endpoints_are_public(app: Flask) -> None:
    open_ones = {each.endpoint for each in app.url_map.iter_rules() if is_public(app, each.endpoint)}
    assert {each for each in open_ones if not each.startswith("security.") and "static" not in each} == PUBLIC


def test_every_other_route_sends_a_stranger_to_sign_in(app: Flask, client: FlaskClient) -> None:
    for rule in app.url_map.iter_rules():
        if is_public(app, rule.endpoint):
            continue
        path = address(rule.rule, "acme.example")
        answer = client.get(path) if "GET" in (rule.methods or ()) else client.post(path)
        refused_for_its_token = answer.status_code == 400 and "GET" not in (rule.methods or ())
        to_the_door = answer.status_code == 302 and "/sign-in" in answer.headers["Location"]
        assert to_the_door or refused_for_its_token, f"{rule.rule}: {answer.status}"


def test_a_post_without_its_token_is_refused(admin: FlaskClient, acme: str, app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        if "POST" in (rule.methods or ()) and not rule.endpoint.startswith("webhook."):
            assert admin.post(address(rule.rule, acme)).status_code == 400, rule.rule


def test_a_stranger_whose_page_asks_for_a_fragment_loads_it_anew(client: FlaskClient, acme: str) -> None:
    answer = client.get(f"/tenants/{acme}/deliveries", headers={"HX-Request": "true"})
    assert answer.headers["HX-Refresh"] == "true"
    assert not answer.data


def test_nothing_of_a_tenant_exists_for_the_administrator_of_another(
    admin: FlaskClient, acme: str, globex: str, app: Flask
) -> None:
    token = csrf_token(admin.get(f"/tenants/{acme}/keys").get_data(as_text=True))
    walked = [each for each in app.url_map.iter_rules() if "<domain>" in each.rule]
    assert len(walked) > 10
    for rule in walked:
        for method in {"GET", "POST"} & (rule.methods or set()):
            answers = [
                admin.open(address(rule.rule, domain), method=method, data={"csrf_token": token}, follow_redirects=True)
                for domain in (globex, "nobody.example")
            ]
            assert [each.status_code for each in answers] == [404, 404], f"{method} {rule.rule}"
            theirs, nobodys = (TOKEN.sub("", each.get_data(as_text=True)) for each in answers)
            assert theirs.replace(globex, "nobody.example") == nobodys, f"{method} {rule.rule}"


def test_nothing_of_the_system_exists_for_a_tenants_administrator(admin: FlaskClient, acme: str, app: Flask) -> None:
    token = csrf_token(admin.get(f"/tenants/{acme}/keys").get_data(as_text=True))
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/system"):
            for method in {"GET", "POST"} & (rule.methods or set()):
                answer = admin.open(address(rule.rule, acme), method=method, data={"csrf_token": token})
                assert answer.status_code == 404, f"{method} {rule.rule}: {answer.status}"


@pytest.mark.parametrize("digits", [LARGEST, str(2**31), str(2**63 - 1), "9" * 400, "9" * 5_000])
def test_a_number_in_a_url_that_no_row_has_is_not_found(
    system: FlaskClient, admin: FlaskClient, acme: str, app: Flask, digits: str
) -> None:
    tokens = {browser: csrf_token(browser.get("/account/password").text) for browser in (system, admin)}
    walked = [rule for rule in app.url_map.iter_rules() if "<int:" in rule.rule]
    assert len(walked) > 8
    for rule in walked:
        path = address(re.sub(r"<int:[^>]*>", digits, rule.rule), acme)
        browser = system if path.startswith("/system") else admin
        method = "GET" if "GET" in (rule.methods or ()) else "POST"
        answer = browser.open(path, method=method, data={"csrf_token": tokens[browser]})
        statuses = {303, 404} if digits == LARGEST else {404}  # some pages lead on where there is no row any more
        assert answer.status_code in statuses, f"{method} {rule.rule}: {answer.status}"


def test_control_characters_and_large_numbers_in_an_address_find_nothing(
    system: FlaskClient, admin: FlaskClient, acme: str
) -> None:
    for path in ("/tenants/a%00b/deliveries", "/system/tenants/a%00b"):
        assert system.get(path).status_code == 404
    for path, status in {"q=%00": 422, "after=%00": 200}.items():
        assert system.get(f"/system/tenants?{path}").status_code == status
    assert post(admin, f"/tenants/{acme}/keys", f"/tenants/{acme}/keys/2147483648/revoke").status_code == 404
