"""`examples.pipeline`: real pictures and animations from the source to the manifest."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from PIL import ExifTags, Image

from examples.demo.inputs import draw_sunset
from examples.images import ImageRefusedError
from examples.pipeline import metadata, publishing, renditions
from tests.examples.stage import play

if TYPE_CHECKING:
    from collections.abc import Callable


def ignore(share: float, what: str) -> None:
    pass


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture from a camera that was held upright, with the EXIF block that such a camera writes."""
    path = tmp_path / "in" / "sunset.jpg"
    path.parent.mkdir()
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Gopher", "G-1"
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:07:14 21:30:00"
    draw_sunset(960, 640).save(path, exif=exif)
    return path


@pytest.fixture
def animation(tmp_path: Path) -> Path:
    """A GIF of three frames, each shown for a time of its own."""
    path = tmp_path / "wheel.gif"
    frames = [Image.new("RGB", (400, 200), colour) for colour in ("red", "green", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 200, 300], loop=0)
    return path


async def test_pipeline_leads_from_a_photo_to_a_manifest(photo: Path, tmp_path: Path) -> None:
    """One submit: the catalogue has the metadata, and the manifest lists real pictures under names with their hash."""
    library = tmp_path / "library"

    async with play("examples.pipeline:registry", tmp_path) as stage:
        ingested = stage.submit("media_ingest", {"source": str(photo), "library": str(library)})
        [published] = await stage.completed("media_publish")

    assert ingested["state"] == "completed"
    assert catalogued(library) == [(metadata.sha256(photo), "JPEG", 640, 960, 1, "2026-07-14T21:30:00", "Gopher G-1")]
    manifest = Path(msgspec.json.decode(published.result or b"")["manifest"])
    assert manifest == library / "cdn" / f"{metadata.sha256(photo)}.json"
    assert sorted(check_files(manifest)) == sorted(
        ["sunset-thumb.jpg", *(f"sunset-{size}.{kind}" for size in (1280, 640, 320) for kind in ("jpg", "webp"))]
    )


def catalogued(library: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(library / "catalogue.sqlite")) as database:
        return database.execute("SELECT sha256, format, width, height, frames, taken_at, camera FROM media").fetchall()


def check_files(manifest: Path) -> list[str]:
    """Assert that each file of the manifest is what the manifest says, and return what they were called."""
    files = json.loads(manifest.read_bytes())["files"]
    for file in files:
        content = (manifest.parent / file["path"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["sha256"][:16] in file["path"]
        with Image.open(manifest.parent / file["path"]) as picture:
            assert Image.MIME[picture.format or ""] == file["content_type"]
    return [file["name"] for file in files]


def test_render_turns_an_animation_into_animated_webp(animation: Path, tmp_path: Path) -> None:
    """Each size keeps frames and timing of the source; thumbnail and poster are stills."""
    reports: list[float] = []

    made = renditions.render(animation, tmp_path / "out", lambda share, _: reports.append(share))

    assert [path.name for path in made] == [
        "wheel-thumb.jpg", "wheel-poster.jpg", "wheel-1280.webp", "wheel-640.webp", "wheel-320.webp",
    ]  # fmt: skip  # one name a line reads worse
    with Image.open(made[-1]) as picture:
        assert (picture.size, getattr(picture, "n_frames", 1)) == ((320, 160), 3)
        durations = []
        for frame in range(3):
            picture.seek(frame)
            picture.load()
            durations.append(picture.info["duration"])
        assert durations == [100, 200, 300]
    with Image.open(made[0]) as thumbnail:
        assert thumbnail.size == (128, 128)
    assert reports[-1] == 1.0


def test_render_puts_what_is_clear_on_white(tmp_path: Path) -> None:
    """The thumbnail of a transparent picture, which JPEG cannot say, is white there."""
    source = tmp_path / "clear.png"
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(source)

    thumbnail = renditions.render(source, tmp_path / "out", ignore)[0]

    with Image.open(thumbnail) as picture:
        assert picture.getpixel((64, 64)) == (255, 255, 255)


@pytest.mark.parametrize("work", [metadata.extract, lambda source: renditions.render(source, source.parent / "out", ignore)])
def test_what_is_no_picture_is_refused(tmp_path: Path, work: Callable[[Path], object]) -> None:
    """A missing file and one that is no picture are refused by name, and nothing is written."""
    text = tmp_path / "notes.txt"
    text.write_text("no picture")

    with pytest.raises(ImageRefusedError, match=r"no such file: .*gone\.png"):
        work(tmp_path / "gone.png")
    with pytest.raises(ImageRefusedError, match=r"notes\.txt is not a picture"):
        work(text)

    assert list(tmp_path.iterdir()) == [text]


def test_damaged_picture_is_refused(photo: Path, tmp_path: Path) -> None:
    """A file that breaks off in the middle is refused when it is decoded."""
    photo.write_bytes(photo.read_bytes()[:2_000])

    with pytest.raises(ImageRefusedError, match=r"sunset\.jpg cannot be read: "):
        renditions.render(photo, tmp_path / "out", ignore)


def test_metadata_says_nothing_that_the_picture_does_not_say(animation: Path) -> None:
    """Without EXIF there is no time and no camera; the frames are counted."""
    found = metadata.extract(animation)

    assert (found.format, found.width, found.height, found.frames) == ("GIF", 400, 200, 3)
    assert (found.taken_at, found.camera) == (None, None)


def test_publish_gives_changed_content_a_new_name(tmp_path: Path) -> None:
    """The old file stays for those who have the old manifest; integrity is what a browser checks."""
    folder, target = tmp_path / "abc", tmp_path / "cdn"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"one")
    first = publishing.publish(folder, target)
    (folder / "a.jpg").write_bytes(b"two")

    second = publishing.publish(folder, target)

    assert second.path == first.path == target / "abc.json"
    assert {path.read_bytes() for path in (target / "files").iterdir()} == {b"one", b"two"}
    assert second.files[0].integrity == f"sha256-{base64.b64encode(hashlib.sha256(b'two').digest()).decode()}"
