"""Row 25: all killers together."""

from __future__ import annotations

import pytest

from tests.chaos.soak import soak


@pytest.mark.slow
def test_row_25_nothing_is_lost_or_doubled_while_everybody_is_killed(tmp_path, monkeypatch):
    figures = soak(20, 25, tmp_path)
    print(figures)
    assert not figures["violations"], (figures, (tmp_path / "output").read_text()[-3000:])
    assert figures["delivered"] > 100
