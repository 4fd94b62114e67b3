"""The page "Connect a PBX": a key, the configuration snippet for each PBX make, and the first event."""
