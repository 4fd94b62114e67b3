"""People who sign in, their roles, and which tenants they may enter. Knows nothing of what is inside a tenant."""
