"""`python -m hardtack` is the command `hardtack`."""

import sys

from hardtack.cli import main

sys.exit(main())
