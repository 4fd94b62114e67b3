"""The tests. Flask's test client opens pages at `localhost`, which is not the host name of the tests' `PORTAL_URL`."""

import os

os.environ.setdefault("TRUSTED_HOSTS", "localhost,127.0.0.1")
