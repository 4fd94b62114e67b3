"""The event types and their fields: parsing a PBX's request into a validated event."""
