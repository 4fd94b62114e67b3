"""Which guide, or which of its sections, helps with which page: the name of a guide and the id of a heading."""

from collections.abc import Mapping
from typing import Final

# By endpoint, or for all pages of a blueprint. A test fails for a page that is missing here.
TOPICS: Final[Mapping[str, str]] = {
    "account": "tenant-administrators#account-and-history",
    "api_keys": "connecting-a-pbx#keys",
    "api_reference": "connecting-a-pbx",
    "audit": "tenant-administrators#account-and-history",
    "branding": "tenant-administrators#templates-and-appearance",
    "connect": "connecting-a-pbx",
    "deliveries": "tenant-administrators#delivery-log",
    "demo": "tenant-administrators",
    "email_settings": "tenant-administrators#recipients",
    "invitation": "tenant-administrators#people",
    "mail_servers": "mail-providers#on-the-mail-server-page",
    "mail_templates": "tenant-administrators#templates-and-appearance",
    "notifications": "tenant-administrators#notifications",
    "oauth": "oauth",
    "overview.of_system": "system-administrators",
    "overview.of_tenant": "tenant-administrators",
    "people": "tenant-administrators#people",
    "provisioning": "softphones",
    "recipients": "tenant-administrators#recipients",
    "security": "tenant-administrators#signing-in",
    "security.change_password": "tenant-administrators#account-and-history",
    "single_sign_on": "tenant-administrators#signing-in",
    "system_api_keys": "system-administrators#system-keys",
    "system_mail_server": "system-administrators#the-shared-mail-server",
    "system_oauth": "oauth",
    "system_search": "system-administrators#searching-all-tenants",
    "system_sign_in": "system-administrators#security",
    "tenants": "system-administrators#tenants",
    "tenants.home": "tenant-administrators",
    "transfer": "operation#many-tenants",
}
# The page of the system, where a blueprint has the same page for a tenant.
SYSTEM_TOPICS: Final[Mapping[str, str]] = {
    "audit": "system-administrators#security",
    "people": "system-administrators#people",
}


def topic_of(endpoint: str | None, *, of_tenant: bool) -> str:
    """Return what helps with a page. Empty: the list of the guides, for an error page without an endpoint."""
    blueprint, topics = (endpoint or "").partition(".")[0], TOPICS if of_tenant else {**TOPICS, **SYSTEM_TOPICS}
    return topics.get(endpoint or "") or topics.get(blueprint, "")
