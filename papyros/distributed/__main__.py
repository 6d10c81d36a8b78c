"""What ``python -m papyros.distributed`` runs: nothing but the command line, so that there is one `Job` class."""

import sys

from papyros.distributed import import_pyro
from papyros.errors import ConfigError

try:
    import_pyro()
    from papyros.distributed.cli import main

    sys.exit(main())
except ConfigError as error:
    print(f"python -m papyros.distributed: {error}", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:  # before what it starts is there, which hears it in order; or while it asks somebody
    sys.exit(130)
