"""Alerts: what is wrong with a tenant or the system, found in a few statements for all, and the emails about it."""
