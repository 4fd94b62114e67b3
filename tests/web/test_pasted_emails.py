"""Email addresses as people paste them."""

# ruff: noqa: RUF001 (full-width characters are among what they paste)

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.notifications.recipients import MAX_TEXT_LENGTH
from portal.web.forms import normalize_email
from portal.web.pasted_emails import split_emails

A, B = "a@x.example", "b@x.example"


@pytest.mark.parametrize(
    "text",
    [
        f"{A} {B}",
        f"{A}\t{B}",
        f"{A}\r\n\r\n{B}\r\n",
        f"{A}；{B}",
        f"{A}，{B}",
        f"{A}、{B}",
        f"{A},\u00a0{B}\u200b",
        f"\ufeff{A}\u2028{B}",
        f"mailto:{A}, MAILTO:{B}?subject=Hello%20there",
        f"<mailto:{A}>;<{B}>",
        "mailto:a%40x.example mailto:b@x.example",
        f"mailto:{A},{B}",
        f'"Doe, Ann" <{A}>, "Bea"<{B}>',
        f"Doe, Ann <{A}>, Doe, Bea <{B}>",
        f"Doe, Ann <{A}>; {B}",
        f"{A}, Doe, Bea <{B}>",
        f"Ann <{A}> Bea <{B}>",
        f"Ann <{A}>, {B}",
        f"{A} <{A}>; '{B}' <{B}>",
        f"“Ann” ＜{A}＞， {B}",
        f"Ann [mailto:{A}]; Bea Doe [mailto:{B}]",
        f"Ann <{A}> [mailto:{A}], <{B}>",
        f"'{A}'; \"{B}\"",
        "a＠x.example; b@x.example",
        f" ;,; {A} ,\t, {B};;",
        f"mailto:{A}?cc={B}",
        f"mailto:{A}?subject=Hello&CC=b%40x.example",
        f"mailto:?to={A}&bcc={B}",
        f"<mailto:{A}?cc={B}>",
        f"Ann [mailto:{A}?cc={B}]",
        f"• {A}\n• {B}",
        f"- {A}\r\n- {B}",
        f"* {A}\n– Bea <{B}>",
        f"1. {A}\n2) {B}",
        f"{A} (Ann Doe), {B} (Doe, Bea)",
        f"{A} (Ann); Bea ({B})",
        f"Ann [{A}], Doe, Bea [{B}]",
        f"[Ann](mailto:{A}) [{B}]",
        f"To: {A}, {B}",
        f"Ann Doe\t{A}\nBea\t{B}",
        f"{A}\tAnn\tSales\r\n{B}\tBea\tSupport",
        f"{A}, {B}.",
        f"«{A}» ‹{B}›",
        f"Bcc: {A}; SMTP:{B}",
        f"To: Ann <{A}>\nCc: {B}",
        f"收件人：{A}；{B}",
    ],
)
def test_two_addresses_are_found(text: str) -> None:
    assert list(dict.fromkeys(split_emails(text))) == [A, B]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nobody", ["nobody"]),
        ("John a@x.example", ["John a@x.example"]),
        ("a@x.example nobody", ["a@x.example nobody"]),
        ("Ann <>", [""]),
        ("b@x.example <a@x.example>", ["b@x.example <a@x.example>"]),
        ("Ann <a@x.example", ["Ann <a@x.example"]),
        ("a@x.example\x00", ["a@x.example\x00"]),
        ("b@x.example [a@x.example]", ["b@x.example <a@x.example>"]),
        ("b@x.example (a@x.example)", ["b@x.example <a@x.example>"]),
        ("b@x.example <mailto:a@x.example?cc=c@x.example>", ["b@x.example <mailto:a@x.example?cc=c@x.example>"]),
        ("mailto:a@x.example?cc=nobody", ["a@x.example", "nobody"]),
        ("mailto:", [""]),
        ("a@x.example (see b@x.example and c@x.example)", ["a@x.example (see b@x.example and c@x.example)"]),
        ("-a@x.example", ["-a@x.example"]),
        ("1.a@x.example", ["1.a@x.example"]),
        ("a@[127.0.0.1]", ["a@[127.0.0.1]"]),
        ("From: a@x.example", ["From: a@x.example"]),
    ],
)
def test_what_is_unclear_stays_for_the_validation_to_reject(text: str, found: list[str]) -> None:
    assert list(split_emails(text)) == found


FORMS = [A, f"Ann <{A}>", f"Doe, Ann <{A}>", f"<mailto:{A}>", f"mailto:{A}?subject=c", f"- {A}", f"{A} (Ann)"]


@given(st.lists(st.sampled_from(FORMS), min_size=1), st.sampled_from([";", "; ", "\n", "\r\n", "\t", "；", ",\n"]))
def test_every_form_takes_every_separator(forms: list[str], separator: str) -> None:
    assert set(split_emails(separator.join(forms))) == {A}


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    assert all(isinstance(email, str) for email in split_emails(text))


PIECES = ["<", ">", '"', "[mailto:", "a ", ",", "a@b.example ", "a <a@b.example> ", "(", " (a", "[a@", "- ", ",a"]


@pytest.mark.parametrize("piece", PIECES)
def test_long_texts_are_split_in_a_moment(piece: str) -> None:
    before = time.process_time()
    list(split_emails(piece * (MAX_TEXT_LENGTH // len(piece))))
    assert time.process_time() - before < 2


@pytest.mark.parametrize("text", ["täst@acme.example", "用户@例子.example", "dvořák@bücher.example"])
def test_an_internationalised_address_is_not_supported(text: str) -> None:
    with pytest.raises(ValueError, match="is not supported here"):
        normalize_email(text)


@pytest.mark.parametrize("text", ["täst", "tä st@acme.example", "täst@@acme.example"])
def test_no_address_at_all(text: str) -> None:
    with pytest.raises(ValueError, match="is not an email address"):
        normalize_email(text)
