"""The fixtures of a PBX that reports to a tenant that is ready for it."""

from tests.ready import key, peer, post, ready, system_key

__all__ = ["key", "peer", "post", "ready", "system_key"]
