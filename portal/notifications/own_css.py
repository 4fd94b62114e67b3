"""The styles of a tenant's own HTML: what dresses a mail stays, what loads or runs something in it goes."""

import re
from collections.abc import Iterable
from typing import Any

import tinycss2

PICTURES = re.compile(r"https?:|data:image/(png|gif|jpeg|webp);base64,", re.IGNORECASE)

DEEPEST = 30  # brackets in brackets, which are looked at by functions that call themselves

_FUNCTIONS = {
    *("rgb", "rgba", "hsl", "hsla", "calc", "min", "max", "clamp", "url"),
    *("linear-gradient", "radial-gradient", "scale", "translate", "rotate"),
}
_PROPERTIES_THAT_RUN = {"behavior", "-moz-binding"}
_BRACKET = re.compile(r"[][(){}]")
_RULES = {"qualified-rule", "at-rule"}


def is_intricate(css: str) -> bool:
    """Return whether brackets are nested so deep that neither of the functions below can be asked."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(css):
        depth += 1 if bracket in "([{" else -1 if depth else 0
        deepest = max(deepest, depth)
    return deepest > DEEPEST


def declarations(css: str) -> str:
    """Return the content of a style attribute, or of a rule, without declarations that load or run something."""
    kept = tinycss2.parse_declaration_list(css, skip_comments=True, skip_whitespace=True)
    return ";".join(each.serialize() for each in kept if _is_harmless(each))


def stylesheet(css: str) -> str:
    """Return a style sheet of rules, also within `@media`; it cannot end the element that it stands in."""
    return _rules(tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True))


def _rules(rules: Iterable[Any]) -> str:
    return "\n".join(filter(None, map(_rule, rules)))


def _rule(rule: Any) -> str:
    if rule.type not in _RULES or rule.content is None:
        return ""
    head = tinycss2.serialize(rule.prelude).strip()
    if rule.type == "qualified-rule":
        inside = declarations(tinycss2.serialize(rule.content))
    elif rule.lower_at_keyword == "media":
        head = f"@media {head}"
        inside = _rules(tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True))
    else:
        return ""
    return f"{head} {{ {inside} }}" if inside and "<" not in head + inside else ""


def _is_harmless(declaration: Any) -> bool:
    if declaration.type != "declaration" or declaration.lower_name in _PROPERTIES_THAT_RUN:
        return False
    return all(map(_may_stand, declaration.value))


def _may_stand(token: Any) -> bool:
    if token.type == "url":
        return PICTURES.match(token.value) is not None
    if token.type == "function":
        parts = token.arguments
        if token.lower_name == "url":
            return all(PICTURES.match(part.value) for part in parts if part.type == "string")
        return token.lower_name in _FUNCTIONS and all(map(_may_stand, parts))
    if token.type in {"() block", "[] block"}:
        return all(map(_may_stand, token.content))
    return token.type not in {"error", "{} block"}
