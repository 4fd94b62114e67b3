"""The demo: one command starts the portal with sample data and a mail catcher. No other room imports it."""
