"""What ``python -m papyros.distributed`` runs: nothing but the command line, so that there is one `Job` class."""

import sys

from papyros.distributed import import_pyro
from papyros.errors import ConfigError

try:
    import_pyro()
    from papyros.distributed.cli import main
except ConfigError as error:
    print(f"python -m papyros.distributed: {error}", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:  # from here on, it is heard in order
    sys.exit(130)

sys.exit(main())
