"""What a picture says of itself, and the SQLite catalogue that keeps it."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from PIL import ExifTags, Image, UnidentifiedImageError

from examples.images import MAX_PIXELS, ImageRefusedError

if TYPE_CHECKING:
    from pathlib import Path

LOCK_WAIT_SECONDS: Final = 5.0
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS media (
    sha256 TEXT PRIMARY KEY, path TEXT NOT NULL, size_bytes INTEGER NOT NULL, format TEXT NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, frames INTEGER NOT NULL, taken_at TEXT, camera TEXT
)
"""


@dataclass(frozen=True)
class Metadata:
    """What is known of a source.

    Attributes:
        sha256: Of the file, in hexadecimal digits.
        path: Where it lies.
        size_bytes: Its length.
        format: As Pillow calls it: JPEG, PNG, GIF...
        width: In pixels, as it is to be seen (EXIF may say that the camera was turned).
        height: Likewise.
        frames: More than one in an animation.
        taken_at: `YYYY-MM-DDTHH:MM:SS` of the camera's clock, from EXIF; None if it does not say.
        camera: Maker and model, from EXIF; None if it does not say.
    """

    sha256: str
    path: str
    size_bytes: int
    format: str
    width: int
    height: int
    frames: int
    taken_at: str | None
    camera: str | None


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_picture(source: Path) -> Image.Image:
    """Open a picture without decoding it; to be closed by the caller.

    Raises:
        ImageRefusedError: It is missing, is no picture or is too large.
    """
    try:
        picture = Image.open(source)
    except FileNotFoundError as error:
        raise ImageRefusedError(f"no such file: {source}") from error
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ImageRefusedError(f"{source} is not a picture that can be read") from error
    if picture.width * picture.height > MAX_PIXELS:
        picture.close()
        raise ImageRefusedError(f"{source} has {picture.width} x {picture.height} pixels; the limit is {MAX_PIXELS:,}")
    return picture


def extract(source: Path) -> Metadata:
    """Return what the file and its EXIF block say.

    Raises:
        ImageRefusedError: As `open_picture`.
    """
    with open_picture(source) as picture:
        exif = picture.getexif()
        width, height = picture.size
        if exif.get(ExifTags.Base.Orientation, 1) >= 5:  # a quarter turn, EXIF 2.3 table 5
            width, height = height, width
        taken = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
        camera = " ".join(_text(exif.get(tag)) for tag in (ExifTags.Base.Make, ExifTags.Base.Model)).strip()
        return Metadata(
            sha256=sha256(source),
            path=str(source),
            size_bytes=source.stat().st_size,
            format=picture.format or "unknown",
            width=width,
            height=height,
            frames=getattr(picture, "n_frames", 1),
            taken_at=_moment(_text(taken)),
            camera=camera or None,
        )


def store(catalogue: Path, found: Metadata) -> None:
    """Keep it; the same content again takes the place of what was there."""
    catalogue.parent.mkdir(parents=True, exist_ok=True)
    row = asdict(found)
    names = ", ".join(f":{name}" for name in row)
    with closing(sqlite3.connect(catalogue, timeout=LOCK_WAIT_SECONDS)) as database, database:
        database.execute(SCHEMA)
        database.execute(f"INSERT OR REPLACE INTO media VALUES ({names})", row)  # noqa: S608  # our own field names


def _text(value: object) -> str:
    return value.strip("\0 ") if isinstance(value, str) else ""


def _moment(text: str) -> str | None:
    """Return EXIF's `YYYY:MM:DD HH:MM:SS` as ISO 8601."""
    day, _, time = text.partition(" ")
    return f"{day.replace(':', '-')}T{time}" if day and time else None
