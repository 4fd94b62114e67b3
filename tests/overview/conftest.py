"""The fixtures of a PBX that reports to a tenant that is ready for it."""

from tests.tenant_fixtures import key, peer, post, system_key, working_tenant

__all__ = ["key", "peer", "post", "system_key", "working_tenant"]
