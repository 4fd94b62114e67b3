"""The audit trail: who changed what, when and from where. Only its views know accounts and tenants."""
