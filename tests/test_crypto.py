"""Stored secrets open only with a key of the ring and in their own place."""

import pytest

from portal.crypto import Keyring, UnreadableSecret, hash_token, new_token

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_secret_opens_in_its_place() -> None:
    ring = Keyring({"1": OLD})
    stored = ring.encrypt("pässword", "mail_servers.password:7")
    assert "pässword".encode() not in stored
    assert ring.decrypt(stored, "mail_servers.password:7") == "pässword"


def test_a_secret_that_was_moved_to_another_tenant_does_not_open() -> None:
    ring = Keyring({"1": OLD})
    stored = ring.encrypt("password", "mail_servers.password:7")
    with pytest.raises(UnreadableSecret):
        ring.decrypt(stored, "mail_servers.password:8")


def test_a_changed_secret_does_not_open() -> None:
    ring = Keyring({"1": OLD})
    stored = ring.encrypt("password", "place")
    with pytest.raises(UnreadableSecret):
        ring.decrypt(stored[:-1] + bytes([stored[-1] ^ 1]), "place")


def test_a_new_key_encrypts_while_the_old_one_still_opens() -> None:
    before = Keyring({"1": OLD})
    both = Keyring({"2": NEW, "1": OLD})
    assert both.decrypt(before.encrypt("password", "place"), "place") == "password"
    with pytest.raises(UnreadableSecret):
        before.decrypt(both.encrypt("password", "place"), "place")


def test_the_same_secret_looks_different_each_time() -> None:
    ring = Keyring({"1": OLD})
    assert ring.encrypt("password", "place") != ring.encrypt("password", "place")


def test_a_fingerprint_tells_equal_contents_with_each_key_of_the_ring() -> None:
    before, both = Keyring({"1": OLD}), Keyring({"2": NEW, "1": OLD})
    assert both.same(b"content", before.fingerprint(b"content"))
    assert both.same(b"content", both.fingerprint(b"content"))
    assert not both.same(b"other", before.fingerprint(b"content"))
    assert not before.same(b"content", both.fingerprint(b"content")), "it is keyed"


def test_a_ring_does_not_show_its_keys() -> None:
    assert "ooo" not in repr(Keyring({"1": OLD}))


def test_tokens_are_long_and_their_hashes_tell_nothing() -> None:
    token = new_token()
    assert len(token) >= 43
    assert token != new_token()
    assert len(hash_token(token)) == 32
    assert hash_token("\ud800") == hash_token("?"), "whatever a request carries can be hashed"
