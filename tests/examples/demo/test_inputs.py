"""`examples.demo.inputs`: what the demo's jobs work on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from PIL import Image

from examples.demo.inputs import make_pictures, make_shop

if TYPE_CHECKING:
    from pathlib import Path


def test_make_pictures_draws_pictures_of_three_kinds(tmp_path: Path) -> None:
    """Three pictures of different formats, modes and shapes, each with something to see on it."""
    seen = []
    for path in make_pictures(tmp_path / "pictures"):
        with Image.open(path) as picture:
            seen.append((path.name, picture.format, picture.mode, picture.size))
            colours = picture.convert("RGB").resize((64, 64)).getcolors(64 * 64)
        assert colours is not None
        assert len(colours) > 20

    assert seen == [
        ("sunset.jpg", "JPEG", "RGB", (2400, 1600)),
        ("badge.png", "PNG", "RGBA", (1200, 1200)),
        ("mandelbrot.webp", "WEBP", "RGB", (1600, 1200)),
    ]


def test_make_shop_fills_a_database_that_holds_together(tmp_path: Path) -> None:
    """There are as many orders as asked for, and each belongs to a customer."""
    path = tmp_path / "shop.sqlite"

    make_shop(path, orders=300)

    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM orders JOIN customers ON customers.id = customer_id").fetchone() == (300,)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_make_shop_gives_the_same_rows_each_time(tmp_path: Path) -> None:
    """The demo's input does not change from run to run."""
    dumps = []
    for name in ("one", "two"):
        make_shop(tmp_path / name, orders=50)
        with closing(sqlite3.connect(tmp_path / name)) as database:
            dumps.append(list(database.iterdump()))

    assert dumps[0] == dumps[1]
