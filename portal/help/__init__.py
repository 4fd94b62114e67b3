"""The guides of `docs/` as pages of the portal, and which section of them helps with which page."""
