"""Stored secrets are decrypted only with a key of the ring, in their own context."""

import pytest

from portal.crypto import Keyring, UnreadableSecret, hash_token, new_token

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_secret_is_decrypted_in_its_context() -> None:
    ring = Keyring({"1": OLD})
    stored = ring.encrypt("pässword", "mail_servers.password:7")
    assert "pässword".encode() not in stored
    assert ring.decrypt(stored, "mail_servers.password:7") == "pässword"


def test_a_secret_that_was_moved_to_another_tenant_is_not_decrypted() -> None:
    ring = Keyring({"1": OLD})
    stored = ring.encrypt("password", "mail_servers.password:7")
    with pytest.raises(UnreadableSecret):
        ring.decrypt(stored, "mail_servers.password:8")


def test_a_changed_secret_is_not_decrypted() -> None:
    ring = Keyring({"1": OLD})
    stored = ring.encrypt("password", "context")
    with pytest.raises(UnreadableSecret):
        ring.decrypt(stored[:-1] + bytes([stored[-1] ^ 1]), "context")


def test_a_new_key_encrypts_while_the_old_one_still_decrypts() -> None:
    before = Keyring({"1": OLD})
    both = Keyring({"2": NEW, "1": OLD})
    assert both.decrypt(before.encrypt("password", "context"), "context") == "password"
    with pytest.raises(UnreadableSecret):
        before.decrypt(both.encrypt("password", "context"), "context")


def test_encrypting_the_same_secret_twice_gives_different_values() -> None:
    ring = Keyring({"1": OLD})
    assert ring.encrypt("password", "context") != ring.encrypt("password", "context")


def test_a_fingerprint_matches_equal_content_with_any_key_of_the_ring() -> None:
    before, both = Keyring({"1": OLD}), Keyring({"2": NEW, "1": OLD})
    assert both.has_fingerprint(b"content", before.fingerprint(b"content"))
    assert both.has_fingerprint(b"content", both.fingerprint(b"content"))
    assert not both.has_fingerprint(b"other", before.fingerprint(b"content"))
    assert not before.has_fingerprint(b"content", both.fingerprint(b"content")), "it is keyed"


def test_the_repr_of_a_key_ring_hides_the_keys() -> None:
    assert "ooo" not in repr(Keyring({"1": OLD}))


def test_tokens_are_long_and_random() -> None:
    token = new_token()
    assert len(token) >= 43
    assert token != new_token()
    assert len(hash_token(token)) == 32
    assert hash_token("\ud800") == hash_token("?"), "any text of a request can be hashed"
