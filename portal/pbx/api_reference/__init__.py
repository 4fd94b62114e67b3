"""The API reference: the OpenAPI description as a page."""
