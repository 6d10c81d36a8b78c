"""Crews and slaves, and the parts of a cluster, have the same Papyros, or say in words that they do not."""

from __future__ import annotations

import os
import subprocess
import sys

from papyros.protocol import spoken
from papyros.slave import PROGRAM


def test_a_slave_of_another_papyros_than_its_crew_ends_in_words():
    command = [sys.executable, "-c", PROGRAM, "0", "0", "0", str(os.getpid()), "0.9/7"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "0.9/7: Papyros was exchanged while it ran; start that program again" in ended.stderr
    assert spoken() in ended.stderr
