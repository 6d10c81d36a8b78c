"""A picture of the Mandelbrot set, and the help of all examples."""

from __future__ import annotations

import colorsys
import os
import re

import pytest
from PIL import Image

from tests.examples.running import KINDS, run


def tints(picture):
    """The tints that occur: the hues of the bright pixels, in steps of 20 degrees."""
    found = set()
    for _, (red, green, blue) in picture.getcolors(picture.width * picture.height):
        if max(red, green, blue) > 150:
            found.add(round(colorsys.rgb_to_hsv(red, green, blue)[0] * 18))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_mandelbrot(kind, tmp_path):
    size = ["--size", "250x170"] if kind == "serial" else ["--size", "250x170", "--limit", "1000"]
    done = run(
        "mandelbrot.py",
        *size,
        "--tile",
        16,
        "--master",
        kind,
        "--slaves",
        2,
        "--output",
        "m.png",
        cwd=tmp_path,
    )
    slaves = re.findall(r"^ +(\d+) tiles +[\d.]+ s  (\S+)$", done.stdout, re.MULTILINE)
    assert sum(int(tiles) for tiles, _ in slaves) == 16 * 11
    assert re.search(r"^m\.png: 250x170 pixels in [\d.]+ s$", done.stdout, re.MULTILINE)
    assert len(slaves) == (1 if kind == "serial" else 2)
    with Image.open(tmp_path / "m.png") as image:
        assert image.format == "PNG"
        assert image.size == (250, 170 + 18 * len(slaves))
        picture = image.crop((0, 0, 250, 170))
        legend = image.crop((0, 170, *image.size))
        # The point 0 is inside of the set, and the corner is far from it.
        assert image.getpixel((250 * 3 // 4, 85)) == (0, 0, 0)
        assert image.getpixel((0, 0)) != (0, 0, 0)
    assert len(tints(picture)) == len(slaves)
    for number in range(len(slaves)):
        swatch = legend.getpixel((9, 18 * number + 9))
        assert round(colorsys.rgb_to_hsv(*swatch)[0] * 18) in tints(picture)


def test_mandelbrot_is_the_same_in_any_tiles(tmp_path):
    pictures = []
    for tile in (7, 1000):
        arguments = ["--size", "40x30", "--tile", tile, "--limit", 50, "--output", f"{tile}.png"]
        run("mandelbrot.py", "--master", "serial", *arguments, cwd=tmp_path)
        with Image.open(tmp_path / f"{tile}.png") as image:
            pictures.append(image.crop((0, 0, 40, 30)).tobytes())
    assert pictures[0] == pictures[1]


def test_wrong_arguments_of_mandelbrot(tmp_path):
    for wrong in ("big", "1x2x3", "0x10", "10x"):
        assert f"'{wrong}'" in (done := run("mandelbrot.py", "--size", wrong, cwd=tmp_path, code=2)).stderr
        assert "WIDTHxHEIGHT" in done.stderr
    done = run("mandelbrot.py", "--output", tmp_path / "nothing" / "m.png", cwd=tmp_path, code=2)
    assert "there is no folder" in done.stderr


def test_mandelbrot_without_pillow(tmp_path):
    (tmp_path / "PIL.py").write_text("raise ImportError('no Pillow here')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = run("mandelbrot.py", "--master", "serial", cwd=tmp_path, code=2, env=environment)
    assert done.stderr == "mandelbrot.py needs Pillow: pip install Pillow\n"


@pytest.mark.parametrize("name", ["demo.py", "digests.py", "mandelbrot.py"])
def test_help(name, tmp_path):
    output = run(name, "--help", cwd=tmp_path).stdout
    assert "--master" in output
    assert "--slaves" in output
