"""What ``python -m papyros.distributed`` runs: nothing but the command line, so that there is one `Job` class."""

import sys

from papyros.distributed.starting import start

if __name__ == "__main__":
    sys.exit(start("papyros.distributed.cli", "python -m papyros.distributed"))
