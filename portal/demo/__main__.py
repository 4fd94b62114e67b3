"""Run the demo: `python -m portal.demo`."""

import sys

try:
    from portal.demo.supervisor import main

    sys.exit(main())
except KeyboardInterrupt:  # during the imports
    sys.exit(0)
