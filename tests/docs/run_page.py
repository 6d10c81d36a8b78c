"""Runs the python blocks of one page, one after the other in one namespace: ``python run_page.py PAGE``.

The namespace is that of ``__main__``, so that classes are what they are in a user's script.
"""

import contextlib
import importlib.util
import io
import subprocess
import sys
import tempfile
from pathlib import Path


def run(page, namespace):
    from tests.docs.pages import blocks

    printed: str | None = ""
    with contextlib.ExitStack() as stack:
        started = False
        for block in blocks(page):
            where = f"{page.name}, line {block.line}"
            if "output" in block.markers and printed is not None:
                assert printed == block.text, f"{where}: this was printed instead:\n{printed}"
            if block.language != "python" or "skip" in block.markers:
                continue
            if "cluster" in block.markers and not started:
                started = True
                start_cluster(stack)
            needed = block.markers.get("needs") or block.markers.get("under")
            if needed and importlib.util.find_spec(needed) is None:
                print(where, "needs", needed)
                printed = None  # whatever it prints
                continue
            if "under" in block.markers:
                printed = run_under(needed, block.text)
                continue
            # Empty lines before it, so that a traceback shows the lines of the page.
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                exec(code, namespace)
            printed = stream.getvalue()
            print(where, "ran")


def run_under(module, text):
    """Run a script as ``python -m MODULE`` runs it, and return what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.py")
        script.write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", module, str(script)], capture_output=True, text=True, timeout=60, check=True
        )
    return done.stdout


def start_cluster(stack):
    """Start a cluster, and have `DistributedMaster()` look for its name server where that one is."""
    import papyros

    cluster = stack.enter_context(papyros.LocalCluster(2))
    constructor = papyros.DistributedMaster.__init__
    group, _ = constructor.__defaults__
    constructor.__defaults__ = (group, cluster.nameserver)


if __name__ == "__main__":
    run(Path(sys.argv[1]), {"__name__": "__main__"})
