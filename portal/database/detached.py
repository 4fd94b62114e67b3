"""Rows that are only read: instances of a model that belong to no session.

SQLAlchemy takes several times longer to make an instance that it keeps track of. For pages with many rows, and for the
path of an event.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, inspect, select
from sqlalchemy.orm import InstrumentedAttribute

from portal.extensions import Base, db

Row = TypeVar("Row", bound=Base)


def detached(model: type[Row], values: Mapping[str, Any]) -> Row:
    """Return an instance with these attributes, and no others."""
    instance = model.__new__(model)
    vars(instance).update(values)
    return instance


def read_detached(
    model: type[Row], *conditions: ColumnElement[bool], order_by: Iterable[Any] = (), limit: int | None = None
) -> Sequence[Row]:
    """Return the rows of the scope that meet the conditions, without what is deferred or encrypted."""
    names, columns = _columns(model)
    query = select(*columns).where(*conditions).order_by(*order_by).limit(limit)
    return [detached(model, dict(zip(names, row, strict=True))) for row in db.session.execute(query)]


@cache
def _columns(model: type[Base]) -> tuple[Sequence[str], Sequence[InstrumentedAttribute[Any]]]:
    attributes = [it for it in inspect(model).column_attrs if not it.deferred and not it.columns[0].info]
    names = [attribute.key for attribute in attributes]
    return names, [getattr(model, name) for name in names]
