"""Tenants and the workspace that an account enters. Only its views know email and events."""
