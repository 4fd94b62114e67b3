"""What an author is told about a template, and what the placeholders stand for."""

import pytest

from portal.notifications import wording
from portal.notifications.kinds import KINDS, EventKind
from portal.notifications.meanings import COMMON, OF_FIELDS, offered
from portal.notifications.placeholders import feeds, values
from portal.notifications.remarks import remarks
from portal.notifications.wording import Format, Wording
from tests.notifications.test_rendering import ACME, NOW, QR_CODE

LOST, WELCOME = KINDS["queue.call_lost"], KINDS["user.created"]
NEEDED = "%%QR_CODE%% %%EXTENSION_PASSWORD%%"
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def said(kind: EventKind, body: str, subject: str = "S", form: Format = Format.MARKDOWN) -> list[str]:
    return list(remarks(kind, Wording(form, subject, body)))


@every_kind
def test_there_is_nothing_to_say_about_a_default(kind: EventKind) -> None:
    assert not remarks(kind, wording.default(kind))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("%%CALLER_NAM%%", "%%CALLER_NAM%% is unknown and stays empty. Did you mean %%CALLER_NAME%%?"),
        ("%%caller_name%%", "%%caller_name%% is unknown and stays empty. Did you mean %%CALLER_NAME%%?"),
        ("%%ZZZ%%", "%%ZZZ%% is unknown and stays empty."),
        ("%%QR_CODE%%", "%%QR_CODE%% stays empty: this event has no QR code."),
    ],
)
def test_what_stays_empty_is_named(body: str, words: str) -> None:
    assert said(LOST, body) == said(LOST, "x", body) == [words]


def test_a_welcome_mail_needs_what_a_user_signs_in_with() -> None:
    assert said(WELCOME, "x", NEEDED) == [
        "%%QR_CODE%% is missing: nobody can set up a phone by scanning.",
        "%%EXTENSION_PASSWORD%% is missing: nobody can sign in by hand.",
        "%%EXTENSION_PASSWORD%% in the subject is read by everybody who sees the list of mails. Move it into the text.",
    ]
    assert not said(WELCOME, NEEDED)


def test_what_is_taken_out_of_own_html_is_named() -> None:
    html = "<form onsubmit=x></form>"
    assert said(LOST, html, form=Format.HTML) == ["Not sent, because no mail needs it: <form>, onsubmit."]
    assert not said(LOST, html)


@every_kind
def test_each_placeholder_is_offered_with_its_meaning_and_its_sample(kind: EventKind) -> None:
    sample = values(kind.fields.model_validate(kind.sample), NOW, ACME) | {"QR_CODE": QR_CODE}
    found = offered(kind, sample)
    assert {each.name for each in found} == set(kind.placeholders)
    assert all(each.meaning and each.sample for each in found)
    assert set(feeds(kind.fields)) <= set(OF_FIELDS)


def test_a_placeholder_means_what_its_field_holds() -> None:
    agents = {each.name: each.meaning for each in offered(KINDS["queue.callback_completed"], {})}
    assert agents["EXTENSION_NUMBER"] == "The agent's extension"
    assert agents["TENANT_NAME"] == COMMON["TENANT_NAME"]
