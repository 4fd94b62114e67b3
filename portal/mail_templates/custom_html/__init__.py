"""Email templates in a tenant's own HTML."""
