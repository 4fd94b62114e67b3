"""People: who has access to a tenant and to the system, in which role, and how they are invited."""
