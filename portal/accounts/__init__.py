"""Accounts: signing in, sessions, two-factor authentication, rate limits and the guards before every page."""
