"""The emails, compared character for character with the expected ones in `tests/emails/`.

`<type>.txt` has the subject and the text, `<type>.html` the HTML of the email about the event type's sample;
`<type>.minimal.txt` is the email about an event with only the required fields, `<type>.<language>.txt` the sample in
another language, and `custom.<type>.…` an email by a tenant's own template. After an intended change, write the files
again and read the differences:

    REWRITE_EMAILS=1 pytest tests/mail_templates/test_emails.py
"""

import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from portal.events.event_type import EmailStyle, EventType
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.events.types import EVENT_TYPES
from portal.mail_servers.smtp.mime import MessageContent
from portal.mail_templates import compiler
from portal.mail_templates.branding import Branding
from portal.mail_templates.compiler import compile_markdown, default_template, qr_code_value
from portal.mail_templates.placeholders import MailContext
from portal.mail_templates.source import TemplateFormat, TemplateSource, compile_source
from portal.web.i18n import LANGUAGES, html_language
from tests.required_fields import described_as_required, sample_of

EMAILS = Path(__file__).parents[1] / "emails"
NOW = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)
PORTAL = "https://portal.example/tenants/acme.example/deliveries"
ACME = MailContext(
    "Acme GmbH",
    "acme.example",
    "Europe/Berlin",
    pbx_web_domain="pbx.acme.example",
    reply_to="help@acme.example",
)
render_message = partial(compiler.render_message, event_url=f"{PORTAL}/019a0000-0000-7000-8000-000000000001")
ADDRESS = "https://portal.example/provision/9mXkq2vT7pLr4ZcWnB8yHs"
SETTINGS_URL = "https://portal.example/email-settings/AAAAAWsLjz3VchTZWEQSm4LBFpNKkjAgX0FEP_iI6vihhIcFlMUMpg"
QR_CODE = qr_code_value("cid:qr-code", ADDRESS)
TRANSLATIONS = sorted(LANGUAGES.keys() - {"en"})
every_language = pytest.mark.parametrize("language", TRANSLATIONS)
CUSTOM = [("queue.call_lost", TemplateFormat.MARKDOWN), ("user.created", TemplateFormat.HTML)]
SUFFIXES = {TemplateFormat.MARKDOWN: "template.md", TemplateFormat.HTML: "template.html"}  # what the author wrote
every_event_type = pytest.mark.parametrize("event_type", ALL_EVENT_TYPES.values(), ids=ALL_EVENT_TYPES)


def _compare(name: str, text: str) -> None:
    file = EMAILS / name
    if os.environ.get("REWRITE_EMAILS"):
        file.write_text(text)
    assert file.is_file(), f"{name} is not there: see the top of this file"
    assert text == file.read_text()


def _as_text(content: MessageContent) -> str:
    return f"Subject: {content.subject}\n\n{content.text}"


def _sample(event_type: EventType, context: MailContext = ACME) -> MessageContent:
    picture = qr_code_value("cid:qr-code", ADDRESS, context.language, context.branding) if event_type.qr_code else None
    return render_message(event_type, event_type.sample_data(NOW), NOW, context, picture, settings_url=SETTINGS_URL)


@every_event_type
def test_email_of_the_sample(event_type: EventType) -> None:
    content = _sample(event_type)
    _compare(f"{event_type.type}.txt", _as_text(content))
    _compare(f"{event_type.type}.html", content.html)


@every_event_type
def test_email_with_only_required_fields(event_type: EventType) -> None:
    data = event_type.fields.model_validate(sample_of(event_type, described_as_required(event_type)))
    _compare(f"{event_type.type}.minimal.txt", _as_text(render_message(event_type, data, NOW, ACME)))


@pytest.mark.parametrize(("type_name", "form"), CUSTOM)
def test_email_by_a_custom_template(type_name: str, form: TemplateFormat) -> None:
    event_type, name = EVENT_TYPES[type_name], f"custom.{type_name}"
    subject, _, body = (EMAILS / f"{name}.{SUFFIXES[form]}").read_text().partition("\n\n")
    template = compile_source(event_type, TemplateSource(form, subject.removeprefix("Subject: "), body))
    content = render_message(
        event_type,
        event_type.sample_data(NOW),
        NOW,
        ACME,
        QR_CODE if event_type.qr_code else None,
        template,
        SETTINGS_URL,
    )
    _compare(f"{name}.txt", _as_text(content))
    _compare(f"{name}.html", content.html)


def test_no_expected_email_is_obsolete() -> None:
    endings = (".txt", ".html", ".minimal.txt", *(f".{language}.txt" for language in TRANSLATIONS))
    expected = {f"{event_type}{ending}" for event_type in ALL_EVENT_TYPES for ending in endings}
    expected |= {
        f"custom.{event_type}.{ending}" for event_type, form in CUSTOM for ending in ("txt", "html", SUFFIXES[form])
    }
    assert {file.name for file in EMAILS.iterdir() if file.is_file()} == expected


@every_language
@every_event_type
def test_email_of_the_sample_in_another_language(event_type: EventType, language: str) -> None:
    content = _sample(event_type, replace(ACME, language=language))
    _compare(f"{event_type.type}.{language}.txt", _as_text(content))
    assert f'<html lang="{html_language(language)}">' in content.html
    for text in (content.subject, content.text, content.html):
        assert not re.search(r"\*\*|%%|%\(|^#", text, re.MULTILINE)
    english = {line for line in _as_text(_sample(event_type)).splitlines() if len(line) > 40 and ADDRESS not in line}
    assert not english & set(content.text.splitlines())


def test_unknown_languages_fall_back_to_english() -> None:
    event_type = EVENT_TYPES["queue.call_lost"]
    assert _sample(event_type, replace(ACME, language="pl")).subject == _sample(event_type).subject
    assert (
        _sample(event_type, replace(ACME, language="de-AT")).subject
        == _sample(event_type, replace(ACME, language="de")).subject
    )


@every_event_type
def test_branding_is_filled_in(event_type: EventType) -> None:
    brand = Branding("#ffd400", "%%TENANT_NAME%% Hotline\nNobody: %%QUEUE_NAME%%\nhttps://%%PBX_WEB_DOMAIN%%/help.")
    content = _sample(event_type, replace(ACME, branding=brand))
    assert default_template(event_type) is default_template(event_type)
    assert "border-top: 4px solid #ffd400" in content.html
    assert "#3846c4" not in content.html
    assert '<a href="https://pbx.acme.example/help" class="link" style="color: inherit">' in content.html
    foot = content.text.partition("\n-- \n")[2]
    assert foot.startswith("Acme GmbH Hotline\nhttps://pbx.acme.example/help.\n\nYou are receiving this email because")


@every_event_type
def test_only_alerts_are_labelled_as_alerts(event_type: EventType) -> None:
    assert (">Alert</span>" in _sample(event_type).html) == (event_type.style is EmailStyle.ALERT)


@every_event_type
def test_the_footnote_says_why_the_reader_gets_it(event_type: EventType) -> None:
    content = _sample(event_type)
    assert (
        content.text.count("You are receiving this email because")
        == content.html.count("You are receiving this email because")
        == 1
    )
    assert "Acme GmbH" in content.text.partition("\n-- \n")[2]


@every_event_type
def test_nothing_external_is_loaded(event_type: EventType) -> None:
    html = _sample(event_type).html
    assert all(source.startswith("cid:") for source in re.findall(r'src="([^"]*)"', html))
    assert not re.search(r"url\(|@import|<link|<script", html)
    assert all(re.search(r'\balt="[^"]+"', image) for image in re.findall(r"<img[^>]*>", html))


def test_the_qr_code_has_a_button_and_a_link_with_the_same_url() -> None:
    content = _sample(EVENT_TYPES["user.created"])
    assert 'src="cid:qr-code"' in content.html
    assert f'href="linphone-config:{ADDRESS}"' in content.html
    assert f'href="{ADDRESS}"' in content.html
    assert f"This works only once:\n{ADDRESS}\n" in content.text


def test_the_url_of_the_qr_code_is_escaped() -> None:
    assert 'href="https://x.example/?a=&#34;&amp;b"' in qr_code_value("cid:x", 'https://x.example/?a="&b').html


def test_without_a_qr_code_it_is_not_mentioned() -> None:
    content = render_message(EVENT_TYPES["user.created"], EVENT_TYPES["user.created"].sample_data(NOW), NOW, ACME)
    assert "QR" not in content.text
    assert "cid:" not in content.html
    assert "Linphone" in content.text


def test_a_caller_name_cannot_change_the_email() -> None:
    event_type = EVENT_TYPES["queue.call_lost"]
    name = "<b>%%QR_CODE%%</b> **Pay** at evil.example %%CALLER_NUMBER%%"
    data = event_type.fields.model_validate({**event_type.sample, "caller_name": name, "queue_name": "Q" * 200})
    content = render_message(event_type, data, NOW, ACME, QR_CODE)
    assert ADDRESS not in content.html + content.text
    assert name.replace("</b>", "</\u200cb>").replace(".example", ".\u200cexample") in content.text
    assert "<b>" not in content.html
    assert "evil.example" not in content.html
    assert len(content.subject) < 150


def test_another_template_replaces_the_default() -> None:
    event_type = EVENT_TYPES["queue.call_lost"]
    own = compile_markdown("Lost: %%CALLER_NAME%%", "Call %%CALLER_NUMBER%%.", EmailStyle.NOTICE, "Because.")
    content = render_message(event_type, event_type.sample_data(NOW), NOW, ACME, template=own)
    assert (content.subject, content.text) == ("Lost: Ana Kovač", "Call +442079460123.\n\n-- \nBecause.\n")


@every_event_type
def test_the_default_is_compiled_once(event_type: EventType) -> None:
    assert default_template(event_type) is default_template(event_type)
