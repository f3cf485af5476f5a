"""The renditions of a picture or an animation: several sizes and formats, a square thumbnail, a poster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PIL import Image, ImageOps, ImageSequence

from examples.files import replacing
from examples.images import Format, ImageRefusedError, ImageRequest, resize
from examples.pipeline.metadata import open_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZES: Final = (1280, 640, 320)
"""The longer edge of the renditions, in pixels; nothing is enlarged."""
FORMATS: Final[tuple[Format, ...]] = ("jpeg", "webp")
THUMBNAIL_PIXELS: Final = 128
QUALITY: Final = 82
MAX_FRAMES: Final = 2_000
FRAME_MS: Final = 100
"""How long a frame is shown that does not say."""


def render(source: Path, folder: Path, report: Callable[[float, str], None]) -> list[Path]:
    """Write all renditions of the source into the folder and return their paths.

    Args:
        source: A picture or an animation.
        folder: Made if need be; what lies there under the same names is replaced.
        report: Called now and then with the share that is done (0 to 1) and the name of the last file.

    Raises:
        ImageRefusedError: The source is missing, no picture, damaged, or has too many pixels or frames.
        OSError: An output cannot be written.
    """
    with open_picture(source) as picture:
        frames = getattr(picture, "n_frames", 1)
        if frames > MAX_FRAMES:
            raise ImageRefusedError(f"{source} has {frames} frames; the limit is {MAX_FRAMES:,}")
        try:
            thumbnail = _write_still(
                ImageOps.fit(_upright(picture), (THUMBNAIL_PIXELS,) * 2), folder / f"{source.stem}-thumb.jpg"
            )
            if frames > 1:
                return [thumbnail, *_render_animation(picture, folder, source.stem, report)]
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow's decoders raise for a damaged file
            raise ImageRefusedError(f"{source} cannot be read: {error}") from error
    request = ImageRequest(str(source), str(folder), sizes=list(SIZES), formats=list(FORMATS), quality=QUALITY)
    return [thumbnail, *(folder / output.path.rpartition("/")[2] for output in resize(request, report))]


def _render_animation(picture: Image.Image, folder: Path, stem: str, report: Callable[[float, str], None]) -> list[Path]:
    """Write animated WebP of each size, with the timing of the source, and its first frame."""
    made = [_write_still(_upright(picture), folder / f"{stem}-poster.jpg")]
    durations = [frame.info.get("duration", FRAME_MS) for frame in ImageSequence.Iterator(picture)]
    for done, size in enumerate(SIZES, 1):
        target = folder / f"{stem}-{size}.webp"
        first, *rest = _scaled_frames(picture, size)
        with replacing(target) as file:
            first.save(file, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, quality=QUALITY)
        made.append(target)
        report(done / len(SIZES), target.name)
    return made


def _scaled_frames(picture: Image.Image, size: int) -> Iterator[Image.Image]:
    for frame in ImageSequence.Iterator(picture):
        copy = frame.convert("RGBA")
        copy.thumbnail((size, size), Image.Resampling.LANCZOS)
        yield copy


def _upright(picture: Image.Image) -> Image.Image:
    """Return the first frame as it is to be seen, on white where it is clear."""
    picture.seek(0)
    frame = ImageOps.exif_transpose(picture).convert("RGBA")
    canvas = Image.new("RGB", frame.size, "white")
    canvas.paste(frame, mask=frame.getchannel("A"))
    return canvas


def _write_still(picture: Image.Image, target: Path) -> Path:
    with replacing(target) as file:
        picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return target
