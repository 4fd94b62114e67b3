"""Many tenants: CSV import, export and import of one tenant, and deletion with everything that belongs to it."""
