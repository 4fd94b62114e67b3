"""`pbx-portal doctor`: checks of everything that the portal needs, each with what to do about it."""
