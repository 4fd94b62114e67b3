"""What all forms and the webhook refuse or write in one way."""

import pytest

from portal.web.forms import has_control_characters, normalize_domain, normalize_email


@pytest.mark.parametrize("text", ["\x00", "a\nb", "\u2028", "\ud800", "\ufffe", "\uffff", "\U0001ffff"])
def test_what_no_document_can_hold_is_seen(text: str) -> None:
    assert has_control_characters(text)


def test_letters_of_all_languages_are_none_of_these() -> None:
    assert not has_control_characters("Ana Kovač 山田 🙂 שלום")


def test_a_name_is_kept_in_its_ascii_form() -> None:
    assert normalize_domain("Bücher.Example.") == "xn--bcher-kva.example"
    assert normalize_email("ops@Bücher.example") == "ops@xn--bcher-kva.example"


@pytest.mark.parametrize("text", ["nonsense", "a@", "@b", "a b@c.example", "x" * 65 + "@a.example"])
def test_what_is_no_address_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is not an email address"):
        normalize_email(text)
