"""The door: every route asks a stranger to sign in, except those that are public on purpose."""

import re

from flask import Flask
from flask.testing import FlaskClient

from portal.accounts.access import is_public
from tests.pages import post

# Each with the reason why a stranger is answered.
PUBLIC = {
    "health.healthz",  # a monitor has no account
    "provisioning.provision",  # the token in the address is the proof
    "webhook.receive_event",  # the key is the proof
    "webhook.openapi",  # tells nothing but the interface
}


def test_only_known_endpoints_are_public(app: Flask) -> None:
    open_ones = {each.endpoint for each in app.url_map.iter_rules() if is_public(app, each.endpoint)}
    assert {each for each in open_ones if not each.startswith("security.") and "static" not in each} == PUBLIC


def test_every_other_route_sends_a_stranger_to_sign_in(app: Flask, client: FlaskClient) -> None:
    for rule in app.url_map.iter_rules():
        if is_public(app, rule.endpoint):
            continue
        address = re.sub(r"<[^>]*domain>", "acme.example", rule.rule)
        address = re.sub(r"<int:[^>]*>", "1", address)
        address = re.sub(r"<[^>]*>", "queue.call_lost", address)
        answer = client.get(address) if "GET" in (rule.methods or ()) else client.post(address)
        refused_for_its_token = answer.status_code == 400 and "GET" not in (rule.methods or ())
        to_the_door = answer.status_code == 302 and "/sign-in" in answer.headers["Location"]
        assert to_the_door or refused_for_its_token, f"{rule.rule}: {answer.status}"


def test_a_post_without_its_token_is_refused(admin: FlaskClient, acme: str, app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        if "POST" in (rule.methods or ()) and rule.endpoint != "webhook.receive_event":
            address = re.sub(r"<[^>]*domain>", acme, rule.rule)
            address = re.sub(r"<int:[^>]*>", "1", address)
            address = re.sub(r"<[^>]*>", "queue.call_lost", address)
            assert admin.post(address).status_code == 400, rule.rule


def test_a_stranger_whose_page_asks_for_a_fragment_loads_it_anew(client: FlaskClient, acme: str) -> None:
    answer = client.get(f"/tenants/{acme}/deliveries", headers={"HX-Request": "true"})
    assert answer.headers["HX-Refresh"] == "true"
    assert not answer.data


def test_a_tenants_pages_do_not_exist_for_the_administrator_of_another(
    admin: FlaskClient, globex: str, app: Flask
) -> None:
    for rule in app.url_map.iter_rules():
        if "<domain>" in rule.rule and "GET" in (rule.methods or ()):
            theirs = admin.get(rule.rule.replace("<domain>", globex))
            nobodys = admin.get(rule.rule.replace("<domain>", "nobody.example"))
            if rule.rule == "/tenants/<domain>/":
                theirs, nobodys = (admin.get(each.location) for each in (theirs, nobodys))
            assert theirs.status_code == nobodys.status_code == 404, rule.rule


def test_control_characters_and_large_numbers_in_an_address_find_nothing(
    system: FlaskClient, admin: FlaskClient, acme: str
) -> None:
    for address in ("/tenants/a%00b/deliveries", "/system/tenants/a%00b"):
        assert system.get(address).status_code == 404
    for address in ("/system/tenants?q=%00", "/system/tenants?after=%00"):
        assert system.get(address).status_code == 200
    assert post(admin, f"/tenants/{acme}/keys", f"/tenants/{acme}/keys/2147483648/revoke").status_code == 404
