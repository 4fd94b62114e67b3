"""`python -m portal.demo`."""

import sys

try:
    from portal.demo.supervisor import main

    sys.exit(main())
except KeyboardInterrupt:  # while the imports ran
    sys.exit(0)
