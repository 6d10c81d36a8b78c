"""A picture of the Mandelbrot set that shows which slave painted what.

The picture is cut into tiles, each of them a job. Every slave has a tint of its
own; the strip at the bottom tells whose it is.

    python examples/mandelbrot.py --master processes --output mandelbrot.png
"""

from __future__ import annotations

import argparse
import colorsys
import math
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import choose

import papyros

LINE = 18  # the height of a line of the legend, in pixels
COLUMN = 260  # the width of one of its columns


class Tile(papyros.Job):
    """The shades of one tile, a byte per pixel: 0 inside of the set, otherwise the brighter the closer to it.

    Its arguments are its box in the picture (x and y of the upper left corner, columns,
    rows), the view (the coordinates of the picture's own corner, and the distance
    between two pixels) and the limit of iterations.
    """

    def __call__(self, box: tuple[int, int, int, int], view: tuple[float, float, float], limit: int) -> bytes:
        x, y, columns, rows = box
        left, top, step = view
        shades = [0] + [1 + int(254 * math.log(n) / math.log(limit)) for n in range(1, limit + 1)]
        return bytes(
            shades[escape_time(left + column * step, top - row * step, limit)]
            for row in range(y, y + rows)
            for column in range(x, x + columns)
        )


def escape_time(real: float, imaginary: float, limit: int) -> int:
    """After how many steps a point leaves the circle of radius 2; 0 when it has not, after `limit` steps."""
    x = y = xx = yy = 0.0
    for count in range(1, limit + 1):
        y = 2 * x * y + imaginary
        x = xx - yy + real
        xx, yy = x * x, y * y
        if xx + yy > 4:
            return count
    return 0


def cut(width: int, height: int, tile: int, limit: int) -> list[Tile]:
    """Cut the picture into jobs."""
    step = max(3.0 / width, 2.5 / height)
    view = -0.75 - width / 2 * step, height / 2 * step, step
    return [
        Tile((x, y, min(tile, width - x), min(tile, height - y)), view, limit)
        for y in range(0, height, tile)
        for x in range(0, width, tile)
    ]


@dataclass
class Painter:
    """What is known of a slave: the colours of its 256 shades, and what it did."""

    number: int
    tiles: int = 0
    seconds: float = 0.0
    palette: list[int] = field(init=False)

    def __post_init__(self) -> None:
        hue = (0.58 + self.number * 0.618034) % 1  # steps of the golden ratio are never close to each other
        self.palette = [0, 0, 0]
        for shade in range(1, 256):
            light = shade / 255
            colour = colorsys.hsv_to_rgb(hue, 0.85 - 0.5 * light, 0.3 + 0.7 * light)
            self.palette += [round(255 * part) for part in colour]

    @property
    def tint(self) -> tuple[int, ...]:
        return tuple(self.palette[3 * 128 : 3 * 129])


def paint(master: papyros.Master, options: argparse.Namespace) -> tuple[Any, dict[str, Painter]]:
    """Return the picture and the painters by the names of their slaves."""
    from PIL import Image

    width, height = options.size
    picture = Image.new("RGB", (width, height))
    painters: dict[str, Painter] = {}
    tiles = cut(width, height, options.tile, options.limit)
    for tile in master.execute(tiles, progress=choose.wants_progress(options)):
        painter = painters.setdefault(tile.slave, Painter(len(painters)))
        painter.tiles += 1
        painter.seconds += tile.seconds
        x, y, *shape = tile.args[0]
        piece = Image.frombytes("P", shape, tile.result)
        piece.putpalette(painter.palette)
        picture.paste(piece.convert("RGB"), (x, y))
    return picture, painters


def with_legend(picture: Any, painters: dict[str, Painter]) -> Any:
    """Return the picture with a strip below that lists the slaves."""
    from PIL import Image, ImageDraw

    columns = max(1, picture.width // COLUMN)
    lines = math.ceil(len(painters) / columns)
    whole = Image.new("RGB", (picture.width, picture.height + lines * LINE), "white")
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    for number, (slave, painter) in enumerate(painters.items()):
        x, y = number % columns * COLUMN, picture.height + number // columns * LINE
        draw.rectangle((x + 3, y + 3, x + LINE - 4, y + LINE - 4), fill=painter.tint)
        draw.text((x + LINE + 2, y + 3), f"{slave}: {painter.tiles} tiles, {painter.seconds:.2f} s", "black")
    return whole


def size(text: str) -> tuple[int, int]:
    try:
        width, height = (choose.whole_number(1, 20_000)(part) for part in text.lower().split("x"))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form WIDTHxHEIGHT, like 640x480") from None
    return width, height


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--size", type=size, default=(640, 480), metavar="WIDTHxHEIGHT", help="in pixels (default: 640x480)"
    )
    parser.add_argument(
        "--tile",
        type=choose.whole_number(1, 20_000),
        default=40,
        metavar="N",
        help="side of a tile (default: 40)",
    )
    parser.add_argument(
        "--limit",
        type=choose.whole_number(2, 1_000_000),
        default=200,
        metavar="N",
        help="iterations after which a point counts as inside of the set (default: 200)",
    )
    parser.add_argument("--output", default="mandelbrot.png", metavar="FILE", help="default: mandelbrot.png")
    choose.add_progress_option(parser)
    choose.add_master_options(parser, default="processes")
    options = parser.parse_args(arguments)
    folder = os.path.dirname(os.path.abspath(options.output))
    if not os.path.isdir(folder):
        parser.error(f"there is no folder {folder!r} to write to")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        import PIL  # noqa: F401 - to know it before the work begins
    except ImportError:
        print("mandelbrot.py needs Pillow: pip install Pillow", file=sys.stderr)
        return 2
    started = time.perf_counter()
    with choose.open_master_of(options) as master:
        picture, painters = paint(master, options)
    seconds = time.perf_counter() - started
    with_legend(picture, painters).save(options.output, "PNG")
    for slave, painter in painters.items():
        print(f"{painter.tiles:6} tiles  {painter.seconds:8.2f} s  {slave}")
    print(f"{options.output}: {picture.width}x{picture.height} pixels in {seconds:.2f} s")
    return 0


if __name__ == "__main__":
    choose.run(main)
