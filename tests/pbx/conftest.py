"""Fixtures: a PBX with its keys, and a tenant that is ready to receive email."""

from tests.tenant_fixtures import key, peer, post, system_key, working_tenant

__all__ = ["key", "peer", "post", "system_key", "working_tenant"]
