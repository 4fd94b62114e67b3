"""Warnings about a template, and the help about placeholders."""

import pytest

from portal.config import ROOT
from portal.events.event_type import EventType
from portal.events.types import EVENT_TYPES
from portal.events.values import placeholders_by_field
from portal.mail_templates import source
from portal.mail_templates.lint import template_warnings
from portal.mail_templates.placeholders import COMMON_MEANINGS, FIELD_MEANINGS, placeholder_help, placeholder_values
from portal.mail_templates.source import TemplateFormat, TemplateSource
from tests.mail_templates.test_emails import ACME, NOW, QR_CODE

LOST, WELCOME = EVENT_TYPES["queue.call_lost"], EVENT_TYPES["user.created"]
NEEDED = "%%QR_CODE%% %%EXTENSION_PASSWORD%%"
every_event_type = pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=EVENT_TYPES)


def lint(
    event_type: EventType, body: str, subject: str = "S", form: TemplateFormat = TemplateFormat.MARKDOWN
) -> list[str]:
    return list(template_warnings(event_type, TemplateSource(form, subject, body)))


@every_event_type
def test_no_warnings_about_defaults(event_type: EventType) -> None:
    assert not template_warnings(event_type, source.default_source(event_type))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("%%CALLER_NAM%%", "%%CALLER_NAM%% is unknown and stays empty. Did you mean %%CALLER_NAME%%?"),
        ("%%caller_name%%", "%%caller_name%% is unknown and stays empty. Did you mean %%CALLER_NAME%%?"),
        ("%%ZZZ%%", "%%ZZZ%% is unknown and stays empty."),
        ("%%QR_CODE%%", "%%QR_CODE%% stays empty: this event has no QR code."),
    ],
)
def test_unknown_placeholders(body: str, words: str) -> None:
    assert lint(LOST, body) == lint(LOST, "x", body) == [words]


def test_a_welcome_email_needs_sign_in_details_in_its_body() -> None:
    assert lint(WELCOME, "x", NEEDED) == [
        "%%QR_CODE%% is missing: users cannot set up a phone by scanning a code.",
        "%%EXTENSION_PASSWORD%% is missing: users cannot sign in manually.",
        "%%EXTENSION_PASSWORD%% in the subject can be read by anyone who sees the inbox. Move it to the body.",
    ]
    assert not lint(WELCOME, NEEDED)


def test_removed_html_is_listed() -> None:
    html = "<form onsubmit=x></form>"
    assert lint(LOST, html, form=TemplateFormat.HTML) == ["Removed, because emails do not need it: <form>, onsubmit."]
    assert not lint(LOST, html)


@every_event_type
def test_every_placeholder_has_a_meaning_and_a_sample(event_type: EventType) -> None:
    data = event_type.fields.model_validate(event_type.sample)
    sample = placeholder_values(data, NOW, ACME, "https://portal.example") | {"QR_CODE": QR_CODE}
    found = placeholder_help(event_type, sample)
    assert {each.name for each in found} == set(event_type.placeholders)
    assert all(each.meaning and each.sample for each in found)
    assert set(placeholders_by_field(event_type.fields)) <= set(FIELD_MEANINGS)


def test_the_meaning_depends_on_the_field() -> None:
    agents = {each.name: each.meaning for each in placeholder_help(EVENT_TYPES["queue.callback_completed"], {})}
    assert agents["EXTENSION_NUMBER"] == "The agent's extension"
    assert agents["TENANT_NAME"] == COMMON_MEANINGS["TENANT_NAME"]


def _reference_table() -> str:
    """Return the table in the reference: each placeholder with its meaning and the types of event that have it."""
    events: dict[tuple[str, str], list[str]] = {}
    for event_type in EVENT_TYPES.values():
        for found in placeholder_help(event_type, {}):
            events.setdefault((found.name, found.meaning), []).append(f"`{event_type.type}`")
    everywhere = len(EVENT_TYPES)
    rows = [
        f"| `%%{name}%%` | {meaning} | {'all' if len(types) == everywhere else ', '.join(types)} |"
        for (name, meaning), types in sorted(events.items(), key=lambda entry: (len(entry[1]) < everywhere, entry[0]))
    ]
    return "\n".join(["| placeholder | value | events |", "|---|---|---|", *rows])


def test_the_reference_lists_every_placeholder() -> None:
    reference = (ROOT / "docs" / "reference" / "placeholders.md").read_text()
    assert _reference_table() in reference, "write what _reference_table() returns into docs/reference/placeholders.md"
