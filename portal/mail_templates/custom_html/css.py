"""Sanitizes the styles of a tenant's own HTML: keeps formatting, removes what loads or runs something."""

import re
from collections.abc import Iterable
from typing import Any

import tinycss2

IMAGE_URL = re.compile(r"https?:|data:image/(png|gif|jpeg|webp);base64,", re.IGNORECASE)

MAX_NESTING = 30  # of brackets, which are processed by recursive functions

MAX_RULES_AND_DECLARATIONS = 4000

_ALLOWED_FUNCTIONS = {
    *("rgb", "rgba", "hsl", "hsla", "calc", "min", "max", "clamp", "url"),
    *("linear-gradient", "radial-gradient", "scale", "translate", "rotate"),
}
_SCRIPT_PROPERTIES = {"behavior", "-moz-binding"}
_BRACKET = re.compile(r"[][(){}]")
_RULE_TYPES = {"qualified-rule", "at-rule"}


def is_too_nested(css: str) -> bool:
    """Return whether brackets are nested too deep for the functions below."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(css):
        depth += 1 if bracket in "([{" else -1 if depth else 0
        deepest = max(deepest, depth)
    return deepest > MAX_NESTING


def has_too_many_rules(css: str) -> bool:
    """Return whether a style sheet takes too long to be parsed."""
    return css.count("{") + css.count(";") > MAX_RULES_AND_DECLARATIONS


def sanitize_declarations(css: str) -> str:
    """Return the content of a style attribute or a rule, without declarations that load or run something."""
    parsed = tinycss2.parse_declaration_list(css, skip_comments=True, skip_whitespace=True)
    return ";".join(declaration.serialize() for declaration in parsed if _is_allowed_declaration(declaration))


def sanitize_stylesheet(css: str) -> str:
    """Return a style sheet with only its rules, also within `@media`. It cannot end the `<style>` element."""
    return _sanitize_rules(tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True))


def _sanitize_rules(rules: Iterable[Any]) -> str:
    return "\n".join(filter(None, map(_sanitize_rule, rules)))


def _sanitize_rule(rule: Any) -> str:
    if rule.type not in _RULE_TYPES or rule.content is None:
        return ""
    selector = tinycss2.serialize(rule.prelude).strip()
    if rule.type == "qualified-rule":
        content = sanitize_declarations(tinycss2.serialize(rule.content))
    elif rule.lower_at_keyword == "media":
        selector = f"@media {selector}"
        content = _sanitize_rules(tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True))
    else:
        return ""
    return f"{selector} {{ {content} }}" if content and "<" not in selector + content else ""


def _is_allowed_declaration(declaration: Any) -> bool:
    if declaration.type != "declaration" or declaration.lower_name in _SCRIPT_PROPERTIES:
        return False
    return all(map(_is_allowed_token, declaration.value))


def _is_allowed_token(token: Any) -> bool:
    if token.type == "url":
        return IMAGE_URL.match(token.value) is not None
    if token.type == "function":
        if token.lower_name == "url":
            return all(IMAGE_URL.match(argument.value) for argument in token.arguments if argument.type == "string")
        return token.lower_name in _ALLOWED_FUNCTIONS and all(map(_is_allowed_token, token.arguments))
    if token.type in {"() block", "[] block"}:
        return all(map(_is_allowed_token, token.content))
    return token.type not in {"error", "{} block"}
