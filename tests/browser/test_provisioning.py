"""The page of a one-time link, in the name of a company with a long one."""

from datetime import timedelta

from flask import Flask

from portal.tenants import service as tenant_service
from tests.browser.conftest import OpenPage
from tests.browser.usable import assert_usable
from tests.provisioning.example_account import issue_token
from tests.provisioning.test_views import LINE
from tests.sql import sql

COMPANY = "Gesellschaft für Nachrichtentechnik und Telefonanlagen mbH"
BRANDING = f"UPDATE tenants SET sender_name = '{COMPANY}', brand_color = '#d35400', reply_to = 'helpdesk@acme.example'"


def test_the_page_of_a_one_time_link_is_usable(app: Flask, acme: str, open_page: OpenPage) -> None:
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        token = issue_token(tenant.id, LINE, timedelta(hours=72))
        sql(BRANDING)
    assert_usable(open_page(f"/provision/{token}"))
