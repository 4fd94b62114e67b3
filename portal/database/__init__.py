"""Postgres: connections, the tenant scope, and fast statements for the path of an event."""
