"""The QR code of a welcome mail, and what a softphone fetches with it, once. Knows no event and no delivery."""
