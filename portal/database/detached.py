"""Rows that are only read: instances of a model that belong to no session.

SQLAlchemy takes several times longer to make an instance that it keeps track of. For pages with many rows, and for the
path of an event.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from portal.extensions import Base

Row = TypeVar("Row", bound=Base)


def detached(model: type[Row], values: Mapping[str, Any]) -> Row:
    """Return an instance with these attributes, and no others."""
    instance = model.__new__(model)
    vars(instance).update(values)
    return instance
