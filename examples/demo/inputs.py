"""What the demo's jobs work on: pictures drawn with Pillow and a shop's orders in a SQLite database.

Both are made from a fixed seed, so that each run has the same input and the checks know what must come out.
"""

from __future__ import annotations

import colorsys
import random
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from pathlib import Path

SEED: Final = 1989
FIRST_ORDER_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
PRODUCTS: Final = ("notebook", "fountain pen", "ink, blue", "desk lamp", 'frame 8" x 10"', "stamp pad")
COUNTRIES: Final = ("AT", "BR", "DE", "FR", "IN", "JP", "NG", "US")
MINUTES_PER_ORDER: Final = 37

SCHEMA: Final = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    product TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    price_cents INTEGER NOT NULL,
    ordered_at TEXT NOT NULL,
    note TEXT
);
"""


def make_pictures(folder: Path) -> list[Path]:
    """Draw three pictures into the folder (a JPEG, a PNG with transparency, a WebP) and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"sunset.jpg": draw_sunset(2400, 1600), "badge.png": draw_badge(1200), "mandelbrot.webp": draw_fractal(1600, 1200)}
    paths = []
    for name, picture in drawn.items():
        path = folder / name
        picture.save(path)
        paths.append(path)
    return paths


def draw_sunset(width: int, height: int) -> Image.Image:
    """Draw a sun over hills: a gradient, a blurred disc and three ridges."""
    rng = random.Random(SEED)
    ramp = Image.linear_gradient("L").resize((width, height))
    sky = Image.composite(Image.new("RGB", ramp.size, "#ff9a3c"), Image.new("RGB", ramp.size, "#2b1055"), ramp)
    sun = Image.new("L", ramp.size, 0)
    radius = height // 6
    middle = (width * 2 // 3, height // 2)
    ImageDraw.Draw(sun).ellipse((middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius), fill=255)
    sky.paste("#fff1b8", mask=sun.filter(ImageFilter.GaussianBlur(radius / 12)))
    pen = ImageDraw.Draw(sky)
    for layer, colour in enumerate(("#5b2a5e", "#3a1a45", "#1a0d26")):
        level = height * (6 + layer) // 9
        ridge = [(x, level + rng.randint(-height // 24, height // 24)) for x in range(0, width + 1, width // 24)]
        pen.polygon([(0, height), *ridge, (width, height)], fill=colour)
    return sky


def draw_badge(side: int) -> Image.Image:
    """Draw a wheel of colours on a transparent ground."""
    badge = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    pen = ImageDraw.Draw(badge)
    slices = 24
    for number in range(slices):
        red, green, blue = (int(part * 255) for part in colorsys.hsv_to_rgb(number / slices, 0.8, 0.95))
        start = number * 360 / slices
        pen.pieslice((20, 20, side - 20, side - 20), start, start + 360 / slices, fill=(red, green, blue, 255))
    pen.ellipse((side // 3, side // 3, side * 2 // 3, side * 2 // 3), fill=(0, 0, 0, 0))
    return badge


def draw_fractal(width: int, height: int) -> Image.Image:
    """Draw the Mandelbrot set, coloured by how fast each point escapes."""
    grey = Image.effect_mandelbrot((width, height), (-2.2, -1.2, 1.0, 1.2), 80)
    return Image.merge("RGB", [grey.point(lambda level, factor=factor: level * factor % 256) for factor in (3, 5, 7)])


def make_shop(path: Path, orders: int) -> None:
    """Fill a new database with customers and this many orders."""
    rng = random.Random(SEED)
    people = [(number, f"Customer {number}", rng.choice(COUNTRIES)) for number in range(1, 201)]
    bought = [
        (
            number,
            rng.choice(people)[0],
            rng.choice(PRODUCTS),
            rng.randint(1, 9),
            rng.randint(150, 12_000),
            (FIRST_ORDER_TIME + timedelta(minutes=MINUTES_PER_ORDER * number)).isoformat(),
            rng.choice((None, "gift", "two lines\nof text")),
        )
        for number in range(1, orders + 1)
    ]
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(SCHEMA)
        database.executemany("INSERT INTO customers VALUES (?, ?, ?)", people)
        database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", bought)
