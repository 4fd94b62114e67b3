"""Warnings about a template that can be saved nevertheless."""

from collections.abc import Iterator
from difflib import get_close_matches

from flask_babel import gettext

from portal.events.event_type import EventType
from portal.events.values import placeholders_by_field
from portal.mail_templates.compiler import placeholders_in, unknown_placeholders
from portal.mail_templates.custom_html.sanitizer import removed_parts
from portal.mail_templates.placement import QR_CODE
from portal.mail_templates.source import TemplateFormat, TemplateSource
from portal.web.i18n import to_translate

# Without these a new user cannot set up a phone.
REQUIRED_PLACEHOLDERS = {
    QR_CODE: to_translate("%(name)s is missing: users cannot set up a phone by scanning a code."),
    "EXTENSION_PASSWORD": to_translate("%(name)s is missing: users cannot sign in manually."),
}
MAX_UNKNOWN_LISTED = 20  # placeholders; each is compared with all known ones
MIN_SIMILARITY = 0.6  # of a placeholder that is suggested instead of an unknown one; 1 is identical


def unknown_in(event_type: EventType, source: TemplateSource) -> list[str]:
    """Return the placeholders of a template that stay empty in every email, sorted by name."""
    return unknown_placeholders(source.subject, source.body, event_type.placeholders)


def template_warnings(event_type: EventType, source: TemplateSource) -> list[str]:
    """Return warnings for the author of a template."""
    return [
        *unknown_warnings(event_type, source),
        *_missing_placeholders(event_type, source),
        *_secrets_in_subject(event_type, source),
        *_removed_html(source),
    ]


def unknown_warnings(event_type: EventType, source: TemplateSource) -> list[str]:
    """Return a warning about each placeholder that stays empty in every email."""
    return list(_describe_unknown(event_type, source))


def _describe_unknown(event_type: EventType, source: TemplateSource) -> Iterator[str]:
    known = event_type.placeholders
    for name in unknown_in(event_type, source)[:MAX_UNKNOWN_LISTED]:
        written, similar = f"%%{name}%%", get_close_matches(name.upper(), known, 1, MIN_SIMILARITY)
        if name == QR_CODE:
            yield gettext("%(name)s stays empty: this event has no QR code.", name=written)
        elif similar:
            yield gettext(
                "%(name)s is unknown and stays empty. Did you mean %(near)s?", name=written, near=f"%%{similar[0]}%%"
            )
        else:
            yield gettext("%(name)s is unknown and stays empty.", name=written)


def _missing_placeholders(event_type: EventType, source: TemplateSource) -> Iterator[str]:
    used = placeholders_in(source.body)
    for name, message in REQUIRED_PLACEHOLDERS.items():
        if name in event_type.placeholders and name not in used:
            yield gettext(message, name=f"%%{name}%%")


def _secrets_in_subject(event_type: EventType, source: TemplateSource) -> Iterator[str]:
    placeholders, secret_names = placeholders_by_field(event_type.fields), event_type.fields.secret_names()
    secrets = {placeholder.name for field, placeholder in placeholders.items() if field in secret_names}
    for name in sorted(placeholders_in(source.subject) & secrets):
        yield gettext(
            "%(name)s in the subject can be read by anyone who sees the inbox. Move it to the body.", name=f"%%{name}%%"
        )


def _removed_html(source: TemplateSource) -> Iterator[str]:
    if source.format is TemplateFormat.HTML and (removed := removed_parts(source.body)):
        yield gettext("Removed, because emails do not need it: %(removed)s.", removed=", ".join(removed))
