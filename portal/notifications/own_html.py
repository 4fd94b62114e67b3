"""A template in a tenant's own HTML: as its author wrote it, except what could run, ask or load more than pictures.

A value is escaped for where it stands: in text, in an attribute that is read, in an address behind a scheme and a host
of the author's. It may stand nowhere else. `nh3` decides what is left of the HTML, and its output is looked at, never
the author's.
"""

import html
import re

import nh3

from portal.languages import to_translate
from portal.notifications.html_text import to_text
from portal.notifications.markup import ATTRIBUTE, PLACEHOLDER, placed
from portal.notifications.own_css import PICTURES, declarations, is_intricate, stylesheet
from portal.notifications.templates import Template, placeholders_in, split
from portal.notifications.unfit import HOSTS, INTRICATE, PICTURE, SCHEME, Unfit, check_address

TAGS = (nh3.ALLOWED_TAGS - {"map", "area", "details", "summary"}) | {"font", "tfoot", "big", "main", "section"}
WITH_CONTENT = {
    *("script", "style", "title", "template", "noscript", "iframe", "object", "embed", "applet", "frameset"),
    *("svg", "math", "audio", "video", "canvas", "select", "textarea", "xmp", "noembed", "noframes", "plaintext"),
}
FRAME = {"html", "head", "body", "meta", "title", "style"}  # which the portal writes itself
READ = {"alt", "title", "summary", "aria-label"}
ATTRIBUTES = {
    "*": {
        *("style", "class", "id", "title", "dir", "lang", "role", "aria-label", "aria-hidden"),
        *("align", "valign", "bgcolor", "width", "height", "border"),
    },
    "a": {"href", "name"},
    "img": {"src", "alt", "hspace", "vspace"},
    "table": {"cellpadding", "cellspacing", "summary", "background"},
    "td": {"colspan", "rowspan", "nowrap", "background", "headers"},
    "th": {"colspan", "rowspan", "nowrap", "background", "headers", "scope"},
    "col": {"span"},
    "colgroup": {"span"},
    "font": {"color", "face", "size"},
    "ol": {"start", "type"},
    "ul": {"type"},
    "hr": {"size", "noshade"},
}
PAGE = """\
<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{subject}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""

MOST_COPIES = 300_000

IN_TAG = to_translate("%(name)s stands in a tag, where no value is safe. Put it into the text.")
IN_ATTRIBUTE = to_translate(
    "%(name)s stands in the attribute “%(attribute)s”, where no value is safe. Put it into the text."
)
IN_STYLE = to_translate("%(name)s stands in a style, where no value is safe. Put it into the text.")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BLANK = re.compile(r"[\x00-\x20]+")
_BODY = re.compile(r"<(/?)body\b", re.IGNORECASE)
_FOR_OUTLOOK = re.compile(r"<!--\[if[^\]<]*\]>(?!<!--|-->)", re.IGNORECASE)
_STYLE = re.compile(r"<style\b[^<>]*>", re.IGNORECASE)
_LINK = re.compile(r"""\shref\s*=\s*(?:"([^"]*)|'([^']*)|([^\s>]*))""", re.IGNORECASE)
# Percent signs are in no host name: these stand in for them while nh3 looks at the addresses.
_HOST = re.compile(f"%%({'|'.join(HOSTS)})%%")
_STAND_IN = re.compile(f"portal-place-({'|'.join(HOSTS)})-x")
_ANY_TAG = re.compile(r"<([a-z][a-z0-9-]*)", re.IGNORECASE)
_MARKS = re.compile(r"<(?:b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)(?=[\s/>])[^>]*>?", re.IGNORECASE)
_WHOLE_TAG = re.compile(r"""<\w+(?:\s+[\w-]+(?:\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=`]+))?)*\s*>""")
_HANDLER = re.compile(r"\s(on[a-z]+)\s*=", re.IGNORECASE)
# In what nh3 writes, no angle bracket stands within a tag, and each value stands in double quotes.
_TAG = re.compile(r"<[^>]*>")
_VALUE = re.compile(r' ([\w-]+)="([^"]*)"')


def compile_html(subject: str, source: str, language: str = "en") -> Template:
    """Return the template of a mail in the author's own HTML, with a text alternative made from it.

    Args:
        subject: one line with placeholders.
        source: HTML with placeholders, a whole page or a part of one.
        language: the language tag of the words (RFC 5646).

    Raises:
        Unfit: a placeholder stands where no value can be made safe, or it is too intricate.
    """
    source = _cut(_CONTROL.sub("", source), _FOR_OUTLOOK, "<![endif]-->")[0]
    subject = " ".join(_CONTROL.sub(" ", subject).split())
    css = "\n".join(_cut(source, _STYLE, "</style")[1])
    _check(source, css)
    body = _TAG.sub(lambda tag: _filled_in(tag[0]), clean(source)).strip()
    text = to_text(body.replace(f"%%{ATTRIBUTE}", "%%").replace(f"%%{PICTURE}%%", f"<br>%%{PICTURE}%%<br>"))
    page = PAGE.format(language=html.escape(language), subject=html.escape(subject), style=stylesheet(css), body=body)
    return Template(
        split(subject), split(text), split(page), has_places=True, placeholders=placeholders_in(subject, source)
    )


def clean(source: str) -> str:
    """Return the HTML without what could run, ask or load more than pictures. It is well-formed, without comments."""
    cleaned = nh3.clean(
        _HOST.sub(r"portal-place-\1-x", _BODY.sub(r"<\1div", source)),
        tags=TAGS,
        clean_content_tags=WITH_CONTENT,
        attributes=ATTRIBUTES,
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto", "tel", "sip", "sips", "cid", "data"},
        url_relative=lambda url: url if url.startswith("#") or PLACEHOLDER.search(url) else None,
        link_rel=None,
    )
    # Control characters may have been written as character references.
    return _CONTROL.sub("", _STAND_IN.sub(r"%%\1%%", cleaned))


def taken_out(source: str) -> list[str]:
    """Return what `clean` takes out of the HTML, in alphabetical order: elements like `<form>`, and `onclick`."""
    tags = {name.lower() for name in _ANY_TAG.findall(source)} - TAGS - FRAME
    handlers = {name.lower() for name in _HANDLER.findall(source)}
    return sorted({f"<{name}>" for name in tags} | handlers)


def _attribute(_tag: str, name: str, value: str) -> str | None:
    if PLACEHOLDER.search(value):
        return value  # `_filled_in` decides
    if name == "style":
        return None if is_intricate(value) else declarations(value) or None
    address = _BLANK.sub("", value)
    if name == "href" and not address.startswith("#"):
        return value if SCHEME.match(address) else None
    if name in {"src", "background"}:
        return value if PICTURES.match(address) else None
    return value


def _filled_in(tag: str) -> str:
    """Return the tag with each placeholder named for where it stands."""
    if tag.startswith("<img") and any(PICTURE in _named(value) for name, value in _VALUE.findall(tag) if name == "src"):
        return f"%%{PICTURE}%%"
    filled = _VALUE.sub(lambda each: f' {each[1]}="{_value(each[1], each[2])}"', tag)
    if PLACEHOLDER.search(_VALUE.sub("", tag)):
        raise Unfit(IN_TAG, _named(tag)[0])
    return filled


def _value(name: str, value: str) -> str:
    names = _named(value)
    if not names:
        return value
    if name == "href":
        check_address(html.unescape(value))
        return placed(value)
    if name not in READ or PICTURE in names:
        raise Unfit(IN_ATTRIBUTE, names[0], attribute=name)
    return PLACEHOLDER.sub(rf"%%{ATTRIBUTE}\1%%", value)


def _check(source: str, css: str) -> None:
    """Raise Unfit for what `clean` would take out without a word, or take too long for."""
    if is_intricate(css) or _copies(source) > MOST_COPIES:
        raise Unfit(INTRICATE)
    if names := _named(css):
        raise Unfit(IN_STYLE, names[0])
    for values in _LINK.findall(source):
        check_address(html.unescape("".join(values)).strip())


def _copies(source: str) -> int:
    """Return how many elements `clean` may write that the author did not, within a small factor.

    A parser opens what marks text anew in each block until it was closed, which makes a short source long: at most
    three of those that are alike (HTML Standard, 13.2.4.3). Of links only one is ever open.
    """
    tags = _MARKS.findall(source)
    whole = [tag for tag in tags if _WHOLE_TAG.fullmatch(tag)]  # of the others nobody knows whether they are alike
    different = len(set(whole)) + len(tags) - len(whole)
    return different * source.count("<")


def _cut(source: str, opening: re.Pattern[str], closing: str) -> tuple[str, list[str]]:
    """Return the source without all that stands between the opening and the closing, and what that was."""
    kept, cut, start = [], [], 0
    while (found := opening.search(source, start)) and (end := source.find(closing, found.end())) >= 0:
        kept.append(source[start : found.start()])
        cut.append(source[found.end() : end])
        start = end + len(closing)
    return "".join([*kept, source[start:]]), cut


def _named(source: str) -> list[str]:
    return PLACEHOLDER.findall(source)
