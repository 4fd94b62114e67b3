"""The QR code in a welcome email and the settings that a softphone fetches with it, once."""
