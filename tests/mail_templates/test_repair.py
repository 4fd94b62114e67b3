"""Placeholders that an editor has changed are filled in, or refused when the template is saved."""

# ruff: noqa: RUF001 (full-width characters, as an input method types them)

import time
from datetime import UTC, datetime

import pytest
from flask import Flask

from portal.events.types import EVENT_TYPES
from portal.mail_templates.compiler import render_message
from portal.mail_templates.placeholders import MailContext
from portal.mail_templates.placement import MisplacedPlaceholder
from portal.mail_templates.source import (
    TemplateFormat,
    TemplateSource,
    check_source,
    repair_placeholders,
    split_placeholder,
)

LOST = EVENT_TYPES["queue.call_lost"]
CALLER = str(LOST.sample["caller_number"])


def text_of(source: TemplateSource) -> str:
    context = MailContext("Acme", "acme.example", "UTC")
    now = datetime.now(UTC)
    message = render_message(LOST, LOST.sample_data(now), now, context, template=check_source(LOST, source))
    return f"{message.subject}\n{message.text}\n{message.html}".replace("\u2060", "").replace("\u200b", "")


@pytest.mark.parametrize("format", TemplateFormat)
@pytest.mark.parametrize(
    "written",
    [
        r"%%CALLER\_NUMBER%%",
        r"\%\%CALLER\_NUMBER\%\%",
        r"%\%CALLER_NUMBER%\%",
        "%%CALLER&#95;NUMBER%%",
        "&#37;&#37;CALLER&lowbar;NUMBER%%",
        "%%CALLER_\u200bNUMBER%%",
        "%%CALLER_&shy;NUMBER%%",
        "%%CALLER_<wbr>NUMBER%%",
        "％％CALLER_NUMBER％％",
        "%%CALLER＿NUMBER%%",
    ],
)
def test_an_escaped_placeholder_is_filled_in(app: Flask, format: TemplateFormat, written: str) -> None:  # noqa: A002
    with app.test_request_context():
        shown = text_of(TemplateSource(format, f"Call from {written}", f"Call {written} back."))
    assert shown.count(CALLER) >= 3, shown
    assert "NUMBER" not in shown


@pytest.mark.parametrize(
    ("format", "body"),
    [
        (TemplateFormat.HTML, "<p>%%<b>CALLER</b>_NUMBER%%</p>"),
        (TemplateFormat.HTML, "<p>%%CALLER<span style='color: red'>_</span>NUMBER%%</p>"),
        (TemplateFormat.HTML, "<p><b>%%CALLER_NUMBER%</b>%</p>"),
        (TemplateFormat.HTML, "<p>%<i>%CALLER&#95;NUMBER%%</i></p>"),
        (TemplateFormat.HTML, "<p>%%CALLER_NUMBER%% and %%CALLER_<a href='https://x.example'>NUMBER</a>%%</p>"),
        (TemplateFormat.MARKDOWN, "%%**CALLER**_NUMBER%%"),
        (TemplateFormat.MARKDOWN, "**%%CALLER_NUMBER%**%"),
    ],
)
def test_a_placeholder_split_by_formatting_is_refused(app: Flask, format: TemplateFormat, body: str) -> None:  # noqa: A002
    with app.test_request_context(), pytest.raises(MisplacedPlaceholder, match="inside %%CALLER_NUMBER%%"):
        check_source(LOST, TemplateSource(format, "Call lost", body))


@pytest.mark.parametrize(
    "page",
    [
        "<p>%%CALLER_NUMBER%%<b>and</b>%%QUEUE_NAME%%</p>",
        "<b>%%CALLER_NUMBER%%</b>%%QUEUE_NAME%%<br>%%A%%",
        "<p>50%%</p><p>CALLER</p><p>%%</p>",
        "<p>100%% <b>of</b> callers %%</p>",
        '<a href="https://x.example/%%attr:QUEUE_NAME%%">%%QUEUE_NAME%%</a>',
    ],
)
def test_whole_placeholders_are_not_refused(page: str) -> None:
    assert split_placeholder(page) is None


def test_defaults_are_unchanged() -> None:
    for event_type in EVENT_TYPES.values():
        assert repair_placeholders(event_type.body) == event_type.body


@pytest.mark.parametrize("piece", ["%", "%%a", "\\", "%\\", "%%a\\", "&shy;", "<", "<b ", "%%A<b>"])
def test_the_worst_text_takes_a_moment(piece: str) -> None:
    before = time.process_time()
    split_placeholder(piece * (100_000 // len(piece)))
    assert time.process_time() - before < 2
