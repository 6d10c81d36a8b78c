"""What ``python -m papyros`` says: which version this is, what can be started, and where to read on."""

from __future__ import annotations

import argparse
from pathlib import Path

import papyros
from papyros import ledger
from papyros.saying import VersionAction, say

#: Where it is: in a checkout, Python takes what is there for the one that is installed.
HERE = Path(papyros.__file__).resolve().parent

HELP = """\
Papyros {version}, {kind}: master/slave parallel processing.

It is used in programs, with `import papyros`; `python -m pydoc papyros` lists what there is.

These are the programs that a cluster is made of, each with a --help:

  pyro5-ns                                   the name server
  python -m papyros.distributed              the master of a group
  python -m papyros.distributed --slaves     slaves, on each machine
  python -m papyros.distributed --status     shows what all of them do
  python -m papyros.distributed --doctor     says what does not work

{manual}"""


def _kind() -> str:
    return "pure Python" if str(ledger.__file__).endswith(".py") else "compiled"


def _manual() -> str:
    sources = HERE.parent
    if (sources / "docs" / "quickstart.md").is_file():
        return f"The manual begins with {sources / 'README.md'} and {sources / 'docs' / 'quickstart.md'}."
    return "The manual is README.md, and the folder docs, in the sources that it was installed from."


def main() -> None:
    """Print the help, whatever is asked."""
    parser = argparse.ArgumentParser(prog="python -m papyros", add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action=VersionAction, version=f"Papyros {papyros.__version__} ({_kind()}), {HERE}")
    parser.parse_args()
    say(HELP.format(version=papyros.__version__, kind=_kind(), manual=_manual()))


if __name__ == "__main__":
    main()
