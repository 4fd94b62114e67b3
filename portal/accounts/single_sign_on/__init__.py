"""Single sign-on: people sign in at an OpenID provider that the operator's settings name."""
