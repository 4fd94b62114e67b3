"""The WSGI application, for the web server and the `flask` command."""

import gc

from portal import create_app

app = create_app()

# What is here now stays: the collector need not look through all of it again and again.
gc.collect()
gc.freeze()
