"""Compiles a template in a tenant's own HTML, after removing scripts, forms and everything it would load except images.

Placeholders are allowed in text, in attributes that are read as text, and in URLs after a scheme and a host that the
author wrote. Each value is escaped for its position. `nh3` decides what is left of the HTML; all other checks look at
its output, not at the author's HTML.
"""

import html
import re
from collections import Counter

import nh3

from portal.mail_templates.compiler import SETTINGS_LINK, CompiledTemplate, placeholders_in
from portal.mail_templates.custom_html.css import (
    IMAGE_URL,
    has_too_many_rules,
    is_too_nested,
    sanitize_declarations,
    sanitize_stylesheet,
)
from portal.mail_templates.custom_html.plain_text import html_to_text
from portal.mail_templates.markdown import ATTRIBUTE_PREFIX, CLOSE, OPEN, PLACEHOLDER, add_url_prefixes
from portal.mail_templates.placement import (
    ALLOWED_SCHEME,
    HOST_PLACEHOLDERS,
    QR_CODE,
    TOO_COMPLEX,
    MisplacedPlaceholder,
    check_url,
)
from portal.web.i18n import html_language, to_translate

ALLOWED_TAGS = (nh3.ALLOWED_TAGS - {"map", "area", "details", "summary"}) | {"font", "tfoot", "big", "main", "section"}
TAGS_REMOVED_WITH_CONTENT = {
    *("script", "style", "title", "template", "noscript", "iframe", "object", "embed", "applet", "frameset"),
    *("svg", "math", "audio", "video", "canvas", "select", "textarea", "xmp", "noembed", "noframes", "plaintext"),
}
PAGE_TAGS = {"html", "head", "body", "meta", "title", "style"}  # written by the portal itself
TEXT_ATTRIBUTES = {"alt", "title", "summary", "aria-label"}
ALLOWED_ATTRIBUTES = {
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

MAX_TAGS = 5000  # opening and closing ones
MAX_DEPTH = 100
MAX_SEMICOLONS = 10_000  # of style attributes, mostly
MAX_REOPENED_TAGS = 300_000  # see `_max_reopened_tags`

IN_TAG = to_translate("%(name)s is inside a tag, where no value is safe. Move it to the text.")
IN_ATTRIBUTE = to_translate(
    "%(name)s is in the attribute “%(attribute)s”, where no value is safe. Move it to the text."
)
IN_STYLE = to_translate("%(name)s is in a style, where no value is safe. Move it to the text.")

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WHITESPACE = re.compile(r"[\x00-\x20]+")
_BODY_TAG = re.compile(r"<(/?)body\b", re.IGNORECASE)
_OUTLOOK_COMMENT = re.compile(r"<!--\[if[^\]<]*\]>(?!<!--|-->)", re.IGNORECASE)
_STYLE_TAG = re.compile(r"<style\b[^<>]*>", re.IGNORECASE)
_HREF = re.compile(r"""\shref\s*=\s*(?:"([^"]*)|'([^']*)|([^\s>]*))""", re.IGNORECASE)
# Host names cannot contain percent signs: tokens replace the placeholders while nh3 checks the URLs.
_HOST_PLACEHOLDER = re.compile(f"%%({'|'.join(HOST_PLACEHOLDERS)})%%")
_HOST_TOKEN = re.compile(f"portal-host-({'|'.join(HOST_PLACEHOLDERS)})-x")
_TAG_NAME = re.compile(r"<([a-z][a-z0-9-]*)", re.IGNORECASE)
_ANY_TAG = re.compile(r"<(/?)([a-z][a-z0-9-]*)", re.IGNORECASE)
# Elements that have no content, or that the next one of their kind closes.
_NOT_NESTED = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"),
    *("p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "colgroup", "caption", "option"),
}
_FORMATTING_TAG = re.compile(
    r"<(?:b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)(?=[\s/>])[^>]*>?", re.IGNORECASE
)
_COMPLETE_TAG = re.compile(r"""<\w+(?:\s+[\w-]+(?:\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=`]+))?)*\s*>""")
_EVENT_HANDLER = re.compile(r"\s(on[a-z]+)\s*=", re.IGNORECASE)
# In the output of nh3 no tag contains an angle bracket, and each attribute value is in double quotes.
_TAG = re.compile(r"<[^<>]*>")
_ATTRIBUTE = re.compile(r' ([\w-]+)="([^"]*)"')


def compile_html(subject: str, source: str, language: str = "en") -> CompiledTemplate:
    """Return the compiled template of an email in the author's own HTML, with generated plain text.

    It raises MisplacedPlaceholder where no value is safe, or if the HTML is too complex.
    """
    source, _ = _cut(_CONTROL_CHARACTERS.sub("", source), _OUTLOOK_COMMENT, "<![endif]-->")
    subject = " ".join(_CONTROL_CHARACTERS.sub(" ", subject).split())
    css = "\n".join(_cut(source, _STYLE_TAG, "</style")[1])
    _check(source, css)
    body = _TAG.sub(lambda tag: _place_in_tag(tag[0]), sanitize(source)).strip()
    text = html_to_text(body.replace(f"%%{ATTRIBUTE_PREFIX}", "%%").replace(f"%%{QR_CODE}%%", f"<br>%%{QR_CODE}%%<br>"))
    body += f'{OPEN}<p style="font-size: 13px">%%{SETTINGS_LINK}%%</p>{CLOSE}'
    text += f"{OPEN}%%{SETTINGS_LINK}%%\n{CLOSE}"
    page = PAGE.format(
        language=html.escape(html_language(language)),
        subject=html.escape(subject),
        style=sanitize_stylesheet(css),
        body=body,
    )
    return CompiledTemplate.of(subject, text, page, placeholders_in(subject, source) | {SETTINGS_LINK})


def sanitize(source: str) -> str:
    """Return well-formed HTML without scripts, forms, comments, and everything it would load except images."""
    sanitized = nh3.clean(
        _HOST_PLACEHOLDER.sub(r"portal-host-\1-x", _BODY_TAG.sub(r"<\1div", source)),
        tags=ALLOWED_TAGS,
        clean_content_tags=TAGS_REMOVED_WITH_CONTENT,
        attributes=ALLOWED_ATTRIBUTES,
        attribute_filter=_sanitize_attribute,
        url_schemes={"http", "https", "mailto", "tel", "sip", "sips", "cid", "data"},
        url_relative=lambda url: url if url.startswith("#") or PLACEHOLDER.search(url) else None,
        link_rel=None,
    )
    # Control characters may have been written as character references.
    return _CONTROL_CHARACTERS.sub("", _HOST_TOKEN.sub(r"%%\1%%", sanitized))


def removed_parts(source: str) -> list[str]:
    """Return what `sanitize` removes from the HTML, sorted: elements like `<form>`, and handlers like `onclick`."""
    tags = {name.lower() for name in _TAG_NAME.findall(source)} - ALLOWED_TAGS - PAGE_TAGS
    handlers = {name.lower() for name in _EVENT_HANDLER.findall(source)}
    return sorted({f"<{name}>" for name in tags} | handlers)


def _sanitize_attribute(_tag: str, name: str, value: str) -> str | None:
    if PLACEHOLDER.search(value):
        return value  # checked by `_place_in_tag`
    if name == "style":
        return None if is_too_nested(value) else sanitize_declarations(value) or None
    url = _WHITESPACE.sub("", value)
    if name == "href" and not url.startswith("#"):
        return value if ALLOWED_SCHEME.match(url) else None
    if name in {"src", "background"}:
        return value if IMAGE_URL.match(url) else None
    return value


def _place_in_tag(tag: str) -> str:
    """Return the tag in which each placeholder has the prefix for its position."""
    sources = [value for name, value in _ATTRIBUTE.findall(tag) if name == "src"] if tag.startswith("<img") else []
    if any(QR_CODE in PLACEHOLDER.findall(value) for value in sources):
        return f"%%{QR_CODE}%%"
    prefixed = _ATTRIBUTE.sub(lambda match: f' {match[1]}="{_place_in_attribute(match[1], match[2])}"', tag)
    if PLACEHOLDER.search(_ATTRIBUTE.sub("", tag)):
        raise MisplacedPlaceholder(IN_TAG, PLACEHOLDER.findall(tag)[0])
    return prefixed


def _place_in_attribute(name: str, value: str) -> str:
    names = PLACEHOLDER.findall(value)
    if not names:
        return value
    if name == "href":
        check_url(html.unescape(value))
        return add_url_prefixes(value)
    if name not in TEXT_ATTRIBUTES or QR_CODE in names:
        raise MisplacedPlaceholder(IN_ATTRIBUTE, names[0], attribute=name)
    return PLACEHOLDER.sub(rf"%%{ATTRIBUTE_PREFIX}\1%%", value)


def _check(source: str, css: str) -> None:
    """Raise MisplacedPlaceholder for what `sanitize` would silently remove, or would take too long for."""
    if (
        is_too_nested(css)
        or has_too_many_rules(css)
        or _is_too_large(source)
        or _max_reopened_tags(source) > MAX_REOPENED_TAGS
    ):
        raise MisplacedPlaceholder(TOO_COMPLEX)
    if names := PLACEHOLDER.findall(css):
        raise MisplacedPlaceholder(IN_STYLE, names[0])
    for values in _HREF.findall(source):
        check_url(html.unescape("".join(values)).strip())


def _is_too_large(source: str) -> bool:
    """Return whether the HTML has too many elements, or nests them too deep. A parser's time grows with the square."""
    tags = _ANY_TAG.findall(source)
    if len(tags) > MAX_TAGS or source.count(";") > MAX_SEMICOLONS:
        return True
    depth, deepest, open_tags = 0, 0, Counter[str]()
    for closing, name in tags:
        tag = name.lower()
        change = -1 if closing else 1
        if tag in _NOT_NESTED or (closing and not open_tags[tag]):
            continue
        open_tags[tag] += change
        depth += change
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH


def _max_reopened_tags(source: str) -> int:
    """Return about how many elements `sanitize` may add to the source, at most.

    A parser opens each unclosed formatting element again in every following block, which can turn a short source into
    very long HTML. Of identical elements it opens at most three (HTML Standard, 13.2.4.3), of links only one.
    """
    tags = _FORMATTING_TAG.findall(source)
    complete = [tag for tag in tags if _COMPLETE_TAG.fullmatch(tag)]  # the others may all be different
    different = len(set(complete)) + len(tags) - len(complete)
    return different * source.count("<")


def _cut(source: str, opening: re.Pattern[str], closing: str) -> tuple[str, list[str]]:
    """Return the source without everything from an opening to the next closing, and what was in between."""
    kept, cut, start = [], [], 0
    while (match := opening.search(source, start)) and (end := source.find(closing, match.end())) >= 0:
        kept.append(source[start : match.start()])
        cut.append(source[match.end() : end])
        start = end + len(closing)
    return "".join([*kept, source[start:]]), cut
