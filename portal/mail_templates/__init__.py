"""The content of an event's email: its template, compiled once per version, and the tenant's branding."""
