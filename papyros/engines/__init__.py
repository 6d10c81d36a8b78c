"""Masters over engines that are run for you: Dask, Ray. Each module needs the extra of its name."""

from __future__ import annotations

__all__ = list[str]()
