"""Updates the catalogues from the messages in code and templates: `make translations`.

A new message has no translation yet; a test names it. A message that no longer exists is removed.
"""

from os import PathLike
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from portal.config import ROOT
from portal.events.describe import field_labels
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.web.i18n import LANGUAGES, catalog_file

TEMPLATES = "templates/**.html"
EMAIL_TEXTS = "templates/**.txt"
METHODS = [("portal/**.py", "python"), (TEMPLATES, "jinja2"), (EMAIL_TEXTS, "jinja2")]
OPTIONS = {TEMPLATES: {"extensions": "jinja2.ext.do", "silent": "false"}}
KEYWORDS = {
    **dict.fromkeys(("_", "gettext", "lazy_gettext", "to_translate", "Advice")),
    "ngettext": (1, 2),
    **dict.fromkeys(("pgettext", "lazy_pgettext"), ((1, "c"), 2)),  # the context, then the message
    "translated": (2,),  # after the language
}
EVENT_TYPE_TEXTS = ("label", "plural", "help", "subject", "body", "footnote")


def messages() -> Catalog:
    """Return everything to translate: the texts of the event types, and the messages marked in code and templates."""
    found = Catalog()
    for event_type in ALL_EVENT_TYPES.values():
        texts = [*(getattr(event_type, name) for name in EVENT_TYPE_TEXTS), *field_labels(event_type)]
        for text in filter(None, texts):
            found.add(text, locations=[(event_type.type, 0)])
    marked = extract_from_dir(ROOT, METHODS, OPTIONS, KEYWORDS, directory_filter=_is_ours)
    for path, _line, message, _comments, context in marked:
        found.add(message, locations=[(path, 0)], context=context)
    return found


def _is_ours(folder: str | PathLike[str]) -> bool:
    return Path(folder).name not in {"translations", "node_modules", "var"} and not Path(folder).name.startswith(".")


def main() -> None:
    """Update each catalogue and keep its translations."""
    for language in LANGUAGES.keys() - {"en"}:
        file = catalog_file(language)
        if file.is_file():
            with file.open("rb") as old:
                catalogue = read_po(old, language)
        else:
            catalogue = Catalog(language)
        catalogue.update(messages(), no_fuzzy_matching=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as new:
            write_po(new, catalogue, width=120, omit_header=True, ignore_obsolete=True, include_lineno=False)
        missing = sum(not message.string for message in catalogue if message.id)
        print(f"{file.relative_to(ROOT)}: {len(catalogue)} messages, {missing} without a translation")


if __name__ == "__main__":
    main()
