"""What all forms and the webhook refuse or write in one way."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest
from flask import Flask
from wtforms import StringField

from portal.notifications.forms import PauseForm
from portal.web.forms import PortalForm, has_control_characters, normalize_domain, normalize_email


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


def test_spaces_and_line_ends_are_no_value_of_a_required_field(app: Flask, subtests: pytest.Subtests) -> None:
    required = [
        (form, field.name)
        for form in _subclasses(PortalForm) - {PauseForm}  # whose field is a day
        for field in _build(app, form)
        if isinstance(field, StringField) and field.flags.required
    ]
    assert len(required) >= 12
    for form, name in required:
        for text in (" ", "\r", "\t\n", "\u3000", "\x1f", "\u2028"):
            with subtests.test(f"{form.__name__}.{name} {text!a}"):
                filled_in = _build(app, form, {name: text})
                assert not filled_in.validate()
                assert filled_in[name].errors


def _subclasses(form: type[PortalForm]) -> set[type[PortalForm]]:
    return {found for subclass in form.__subclasses__() for found in {subclass} | _subclasses(subclass)}


def _build(app: Flask, form: type[PortalForm], values: Mapping[str, str] = MappingProxyType({})) -> PortalForm:
    with app.test_request_context():
        return form.from_values(values)
