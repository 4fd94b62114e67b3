"""Who changed what, when and from where. Its pages stand above accounts and tenants; what writes knows neither."""
