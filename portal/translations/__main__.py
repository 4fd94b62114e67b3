"""Brings the catalogues up to date with what stands in code and templates: `make translations`.

A message that is new has no words yet; a test names it. One that is gone is taken out.
"""

from os import PathLike
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from portal.config import ROOT
from portal.languages import LANGUAGES, catalogue_file
from portal.notifications.digest import EVERY_KIND
from portal.notifications.facts import labels

TEMPLATES = "templates/**.html"
METHODS = [("portal/**.py", "python"), (TEMPLATES, "jinja2")]
OPTIONS = {TEMPLATES: {"extensions": "jinja2.ext.do", "silent": "false"}}
KEYWORDS = {
    **dict.fromkeys(("_", "gettext", "lazy_gettext", "to_translate", "Remedy")),
    "ngettext": (1, 2),
    **dict.fromkeys(("pgettext", "lazy_pgettext"), ((1, "c"), 2)),  # what it is about, then the words
    "translated": (2,),  # behind the language
}
OF_A_KIND = ("label", "plural", "help", "subject", "body", "why")


def messages() -> Catalog:
    """Return everything that is to be translated: of each event kind, and what code and templates mark."""
    found = Catalog()
    for kind in EVERY_KIND.values():
        for text in filter(None, [*(getattr(kind, name) for name in OF_A_KIND), *labels(kind)]):
            found.add(text, locations=[(kind.type, 0)])
    marked = extract_from_dir(ROOT, METHODS, OPTIONS, KEYWORDS, directory_filter=_is_ours)
    for path, _line, message, _comments, context in marked:
        found.add(message, locations=[(path, 0)], context=context)
    return found


def _is_ours(folder: str | PathLike[str]) -> bool:
    return Path(folder).name not in {"translations", "node_modules", "var"} and not Path(folder).name.startswith(".")


def main() -> None:
    """Write each catalogue anew, with the words that it has."""
    for language in LANGUAGES.keys() - {"en"}:
        file = catalogue_file(language)
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
        print(f"{file.relative_to(ROOT)}: {len(catalogue)} messages, {missing} without words")


if __name__ == "__main__":
    main()
