"""The page on which a tenant connects a PBX: ready lines for its make, and what has come from it."""
