"""Reads pages of the manual: their fenced blocks, the markers before these, and their links."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>.*)$")
MARKER = re.compile(r"<!-- docs-test: (\w+) ?(.*?) -->")


@dataclass
class Block:
    """A fenced block.

    Attributes:
        language: the first word after the fence.
        text: what is in it, without the indentation of the fence.
        line: the number of its first line in the page.
        markers: the markers on the lines just before it, with what follows their names:
            ``cluster`` (a cluster must be up), ``skip REASON``, ``needs MODULE`` and ``under MODULE``
            (it runs where that is installed; under it, as ``python -m MODULE``, as a script of its own), and
            ``output`` (it is what the python block before it prints).
    """

    language: str
    text: str
    line: int
    markers: dict[str, str] = field(default_factory=dict)


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found: list[Block] = []
    markers: dict[str, str] = {}
    lines = iter(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        if (fence := FENCE.match(line)) is not None:
            inside = []
            for _, text in lines:
                if text.strip() == fence["ticks"]:
                    break
                inside.append(text.removeprefix(fence["indent"]))
            else:
                raise ValueError(f"{path.name}, line {number}: this block does not end")
            found.append(Block(fence["info"].strip(), "\n".join(inside) + "\n", number + 1, markers))
            markers = {}
        elif marker := MARKER.search(line):
            markers[marker[1]] = marker[2]
        elif line.strip() and markers:
            raise ValueError(f"{path.name}, line {number}: a marker belongs just before a block")
    return found


def prose(path: Path) -> str:
    """Return a page without its fenced blocks."""
    kept, ticks = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        fence = FENCE.match(line)
        if not ticks and fence is not None:
            ticks = fence["ticks"]
        elif ticks and line.strip() == ticks:
            ticks = ""
        elif not ticks:
            kept.append(line)
    return "\n".join(kept)


def headings(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as MyST and forges make them."""
    found = re.findall(r"^#{1,3} (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


def links(path: Path) -> list[str]:
    """Return where the links of a page lead to."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(path))
