"""What ``python -m papyros.distributed`` runs: nothing but the command line, so that there is one `Job` class."""

import sys

from papyros.distributed.cli import main

sys.exit(main())
