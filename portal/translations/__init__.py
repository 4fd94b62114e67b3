"""The catalogues: the texts of emails and pages in other languages. `portal.web.i18n` reads them."""
