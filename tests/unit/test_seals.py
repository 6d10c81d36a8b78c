"""Seals: of what lies in several buffers they are the same as of what lies in one."""

from __future__ import annotations

import os

import pytest

from papyros.distributed.keys import ClusterKey
from papyros.distributed.seals import Seals
from papyros.frames import Parts

KEY = ClusterKey(bytes(range(32)), "a test")
DEFINITION = bytes(16)


@pytest.mark.parametrize("cuts", [(0, 0), (1, 5000), (2500, 2500)])
def test_a_seal_of_parts_fits_what_arrives_in_one_piece_and_nothing_else(cuts):
    blob = os.urandom(5000)
    first, second = cuts
    parts = Parts([blob[:first], memoryview(blob)[first:second], blob[second:]])
    here, there = Seals(KEY, "a session"), Seals(KEY, "a session")
    seal = here.seal_job(1, DEFINITION, parts)
    assert there.check_job(1, DEFINITION, blob, seal)
    assert there.check_job(1, DEFINITION, blob, here.seal_job(1, DEFINITION, blob))
    altered = bytearray(blob)
    altered[first % 5000] ^= 1
    assert not there.check_job(1, DEFINITION, altered, seal)
    assert not there.check_job(2, DEFINITION, blob, seal)
    assert not there.check_job(1, bytes(15) + b"x", blob, seal)
    assert not there.check_job(1, DEFINITION, blob[:-1], seal)
