"""SQL that runs while a template renders fails the test."""

import pytest
from flask import Flask
from sqlalchemy import text

from portal.extensions import db
from tests.render_guard import assert_no_sql_while_rendering


def test_a_template_that_queries_the_database_is_noticed(context: Flask) -> None:
    template = context.jinja_env.from_string("{{ query() }}")
    assert template.render(query=lambda: db.session.scalar(text("SELECT 7"))) == "7"
    with pytest.raises(AssertionError, match="a template runs SQL: SELECT 7"):
        assert_no_sql_while_rendering()


def test_a_query_before_rendering_is_not(context: Flask) -> None:
    seven = db.session.scalar(text("SELECT 7"))
    assert context.jinja_env.from_string("{{ seven }}").render(seven=seven) == "7"
    assert_no_sql_while_rendering()
