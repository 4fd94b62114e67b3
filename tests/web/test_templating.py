"""Templates and forms write the same HTML as their libraries would, in less time."""

from enum import StrEnum

import pytest
from flask import Flask
from flask_babel import lazy_gettext
from jinja2 import UndefinedError
from markupsafe import Markup, escape
from wtforms.widgets import html_params

from portal.web.forms import attributes

HOSTILE = "<b title='\"'>&amp;"


class Word(StrEnum):
    """Text of another type."""

    HOSTILE = HOSTILE


@pytest.mark.parametrize(
    "value", [HOSTILE, "", Markup(HOSTILE), Word.HOSTILE, 3, 2.5, None, True, [HOSTILE], lazy_gettext(HOSTILE)]
)
def test_a_value_is_escaped_as_markupsafe_does(app: Flask, value: object) -> None:
    with app.test_request_context():
        for template in ("{{ value }}", "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(value) }}", "{{ [value][0] }}"):
            assert app.jinja_env.from_string(template).render(value=value) == escape(value)


def test_a_missing_value_is_an_error(app: Flask) -> None:
    with pytest.raises(UndefinedError):
        app.jinja_env.from_string("{{ missing }}").render()


def test_text_is_not_escaped_where_a_template_says_so(app: Flask) -> None:
    template = app.jinja_env.from_string("{% autoescape off %}{{ value }}{% endautoescape %}{{ value }}")
    assert template.render(value=HOSTILE, off=False) == HOSTILE + str(escape(HOSTILE))


def test_attributes_are_those_of_wtforms() -> None:
    given = {"class_": "a b", "data_x_y": HOSTILE, "aria_label": Markup(HOSTILE), "hx-get": "/?a=1&b=2", "max": 200}
    given |= {"required": True, "disabled": False, "value": "", "list": None}
    assert attributes(**given) == html_params(**given)
