"""Tenants, and the workspace that an account enters. Nothing about mail or events may come in."""
