"""The mails, compared with those in `tests/emails/`, character for character.

`<type>.txt` holds the subject and the text, `<type>.html` the HTML, both of the kind's sample; `<type>.least.txt` is
the mail of an event with its required fields alone. `<type>.<language>.txt` is the sample in another language. Those
that begin with `own` are of a tenant's templates. After a
change that is meant, write them anew and read the difference:

    REWRITE_EMAILS=1 pytest tests/notifications/test_rendering.py
"""

import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from portal.languages import LANGUAGES
from portal.mail_servers.composing import Words
from portal.notifications.brand import Brand
from portal.notifications.digest import EVERY_KIND
from portal.notifications.kinds import KINDS, EventKind
from portal.notifications.placeholders import Context
from portal.notifications.rendering import default_template, qr_code, render, sample_words
from portal.notifications.templates import Look, compile_template
from portal.notifications.wording import Format, Wording, compiled

EMAILS = Path(__file__).parents[1] / "emails"
NOW = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)
ACME = Context("Acme GmbH", "acme.example", "Europe/Berlin", pbx_web_domain="pbx.acme.example")
ADDRESS = "https://portal.example/provision/9mXkq2vT7pLr4ZcWnB8yHs"
QR_CODE = qr_code("cid:qr-code", ADDRESS)
OTHERS = sorted(LANGUAGES.keys() - {"en"})
every_language = pytest.mark.parametrize("language", OTHERS)
OWN = [("queue.call_lost", Format.MARKDOWN), ("user.created", Format.HTML)]
SUFFIXES = {Format.MARKDOWN: "template.md", Format.HTML: "template.html"}  # what the author wrote
every_kind = pytest.mark.parametrize("kind", EVERY_KIND.values(), ids=EVERY_KIND)


def _compare(name: str, text: str) -> None:
    file = EMAILS / name
    if os.environ.get("REWRITE_EMAILS"):
        file.write_text(text)
    assert file.is_file(), f"{name} is not there: see the top of this file"
    assert text == file.read_text()


def _plain(words: Words) -> str:
    return f"Subject: {words.subject}\n\n{words.text}"


def _sample(kind: EventKind, context: Context = ACME) -> Words:
    picture = qr_code("cid:qr-code", ADDRESS, context.locale, context.brand)
    return sample_words(kind, NOW, context, picture if kind.qr_code else None)


@every_kind
def test_the_mail_of_the_sample(kind: EventKind) -> None:
    words = _sample(kind)
    _compare(f"{kind.type}.txt", _plain(words))
    _compare(f"{kind.type}.html", words.html)


@every_kind
def test_the_mail_of_the_required_fields_alone(kind: EventKind) -> None:
    required = {name for name, field in kind.fields.model_fields.items() if field.is_required()}
    data = kind.fields.model_validate({name: kind.sample[name] for name in required})
    _compare(f"{kind.type}.least.txt", _plain(render(kind, data, NOW, ACME)))


@pytest.mark.parametrize(("event_type", "form"), OWN)
def test_the_mail_of_a_tenants_own_template(event_type: str, form: Format) -> None:
    kind, name = KINDS[event_type], f"own.{event_type}"
    subject, _, body = (EMAILS / f"{name}.{SUFFIXES[form]}").read_text().partition("\n\n")
    template = compiled(kind, Wording(form, subject.removeprefix("Subject: "), body))
    words = sample_words(kind, NOW, ACME, QR_CODE if kind.qr_code else None, template)
    _compare(f"{name}.txt", _plain(words))
    _compare(f"{name}.html", words.html)


def test_no_expected_mail_is_left_over() -> None:
    endings = (".txt", ".html", ".least.txt", *(f".{language}.txt" for language in OTHERS))
    expected = {f"{kind}{ending}" for kind in EVERY_KIND for ending in endings}
    expected |= {f"own.{kind}.{ending}" for kind, form in OWN for ending in ("txt", "html", SUFFIXES[form])}
    assert {file.name for file in EMAILS.iterdir()} == expected


@every_language
@every_kind
def test_the_mail_of_the_sample_in_another_language(kind: EventKind, language: str) -> None:
    words = _sample(kind, replace(ACME, locale=language))
    _compare(f"{kind.type}.{language}.txt", _plain(words))
    assert f'<html lang="{language}">' in words.html
    for text in (words.subject, words.text, words.html):
        assert not re.search(r"\*\*|%%|%\(|^#", text, re.MULTILINE)
    english = {line for line in _plain(_sample(kind)).splitlines() if len(line) > 40 and ADDRESS not in line}
    assert not english & set(words.text.splitlines())


def test_a_language_that_nobody_translated_is_english() -> None:
    kind = KINDS["queue.call_lost"]
    assert _sample(kind, replace(ACME, locale="pl")).subject == _sample(kind).subject
    assert _sample(kind, replace(ACME, locale="de-AT")).subject == _sample(kind, replace(ACME, locale="de")).subject


@every_kind
def test_the_brand_is_filled_in(kind: EventKind) -> None:
    brand = Brand("#ffd400", "%%TENANT_NAME%% Hotline\nNobody: %%QUEUE_NAME%%\nhttps://%%PBX_WEB_DOMAIN%%/help.")
    words = _sample(kind, replace(ACME, brand=brand))
    assert default_template(kind) is default_template(kind)
    assert "border-top: 4px solid #ffd400" in words.html
    assert "#3846c4" not in words.html
    assert '<a href="https://pbx.acme.example/help" class="link" style="color: inherit">' in words.html
    foot = words.text.partition("\n-- \n")[2]
    assert foot.startswith("Acme GmbH Hotline\nhttps://pbx.acme.example/help.\n\nYou get this mail because")


@every_kind
def test_an_alert_says_that_it_is_one(kind: EventKind) -> None:
    assert (">Alert</span>" in _sample(kind).html) == (kind.look is Look.ALERT)


@every_kind
def test_the_mail_tells_whose_it_is_and_why(kind: EventKind) -> None:
    words = _sample(kind)
    assert words.text.count("You get this mail because") == words.html.count("You get this mail because") == 1
    assert "Acme GmbH" in words.text.partition("\n-- \n")[2]


@every_kind
def test_nothing_in_it_is_loaded_from_elsewhere(kind: EventKind) -> None:
    html = _sample(kind).html
    assert all(source.startswith("cid:") for source in re.findall(r'src="([^"]*)"', html))
    assert not re.search(r"url\(|@import|<link|<script", html)
    assert all(re.search(r'\balt="[^"]+"', image) for image in re.findall(r"<img[^>]*>", html))


def test_the_qr_code_has_a_button_and_a_link_with_the_same_address() -> None:
    words = _sample(KINDS["user.created"])
    assert 'src="cid:qr-code"' in words.html
    assert f'href="linphone-config:{ADDRESS}"' in words.html
    assert f'href="{ADDRESS}"' in words.html
    assert f"linphone-config:{ADDRESS}\nor open {ADDRESS}\n" in words.text


def test_an_address_in_the_qr_code_is_escaped() -> None:
    assert 'href="https://x.example/?a=&#34;&amp;b"' in qr_code("cid:x", 'https://x.example/?a="&b').html


def test_without_a_qr_code_nothing_speaks_of_it() -> None:
    words = sample_words(KINDS["user.created"], NOW, ACME)
    assert "QR" not in words.text
    assert "cid:" not in words.html
    assert "Linphone" in words.text


def test_a_caller_cannot_forge_a_mail() -> None:
    kind = KINDS["queue.call_lost"]
    name = "<b>%%QR_CODE%%</b> **Pay** at evil.example %%CALLER_NUMBER%%"
    data = kind.fields.model_validate({**kind.sample, "caller_name": name, "queue_name": "Q" * 200})
    words = render(kind, data, NOW, ACME, QR_CODE)
    assert ADDRESS not in words.html + words.text
    assert name.replace("</b>", "</\u200cb>").replace(".example", ".\u200cexample") in words.text
    assert "<b>" not in words.html
    assert "evil.example" not in words.html
    assert len(words.subject) < 150


def test_another_template_takes_the_place_of_the_kinds_own() -> None:
    kind = KINDS["queue.call_lost"]
    own = compile_template("Lost: %%CALLER_NAME%%", "Call %%CALLER_NUMBER%%.", Look.NOTICE, "Because.")
    words = sample_words(kind, NOW, ACME, template=own)
    assert (words.subject, words.text) == ("Lost: Ana Kovač", "Call +442079460123.\n\n-- \nBecause.\n")


@every_kind
def test_a_kinds_template_is_compiled_once(kind: EventKind) -> None:
    assert default_template(kind) is default_template(kind)
