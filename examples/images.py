"""What an `image_processing` job does: scales one picture to several sizes and formats.

Decoding and scaling is C code that keeps a core busy, so the handler runs in a process of its own: it never blocks the worker's
loop, it can be killed when the job is cancelled or timed out, and a picture that crashes the decoder takes no other job with it.
Paths are taken as they are: whoever may submit such a job may have the worker read and write them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from PIL import Image, ImageOps, UnidentifiedImageError

from examples.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PIXELS: Final = 80_000_000  # 320 MB once decoded as RGBA; Pillow itself warns from 89 million on
EXTENSIONS: Final = {"jpeg": "jpg", "png": "png", "webp": "webp"}
BACKGROUND: Final = "white"  # JPEG knows no transparency: what was clear becomes this

Format = Literal["jpeg", "png", "webp"]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=8192)]
Sizes = Annotated[list[Pixels], msgspec.Meta(min_length=1, max_length=16)]
Formats = Annotated[list[Format], msgspec.Meta(min_length=1, max_length=3)]
Percent = Annotated[int, msgspec.Meta(ge=1, le=95)]


def _only_jpeg() -> list[Format]:
    """Return the formats of a job that names none."""
    return ["jpeg"]


@dataclass(frozen=True)
class ImageRequest:
    """The payload of an `image_processing` job.

    Attributes:
        source: Path of the picture, in any format Pillow reads, up to 80 million pixels.
        output_dir: Folder for the outputs, made if need be; they are named `<stem of source>-<size>.<extension>`.
        sizes: The longer edge of each output, in pixels, 1 to 8192. The aspect ratio is kept; nothing is enlarged.
        formats: Each size is written in each of these.
        quality: Of JPEG and WebP, in per cent, 1 to 95.
    """

    source: str
    output_dir: str
    sizes: Sizes
    formats: Formats = field(default_factory=_only_jpeg)
    quality: Percent = 85


@dataclass(frozen=True)
class Output:
    """One file that was written.

    Attributes:
        path: Where it lies.
        width: In pixels.
        height: In pixels.
        size_bytes: Its length.
    """

    path: str
    width: int
    height: int
    size_bytes: int


class ImageRefusedError(Exception):
    """The source is not a picture that can be processed; another attempt would find the same."""


def resize(request: ImageRequest, report: Callable[[float, str], None]) -> list[Output]:
    """Write each size in each format and return what was written, in that order.

    Args:
        request: What to do; a size or format given twice is written once.
        report: Called after each output with the share that is done (0 to 1) and the file's name.

    Raises:
        ImageRefusedError: The source is missing, is no picture, is damaged or too large.
        OSError: An output cannot be written.
    """
    picture = _load(Path(request.source))
    wanted = dict.fromkeys((size, name) for size in request.sizes for name in request.formats)
    outputs: list[Output] = []
    for size, name in wanted:
        target = Path(request.output_dir, f"{Path(request.source).stem}-{size}.{EXTENSIONS[name]}")
        outputs.append(_write(_scaled(picture, size), target, name, request.quality))
        report(len(outputs) / len(wanted), target.name)
    return outputs


def _load(source: Path) -> Image.Image:
    """Return the decoded picture, upright and in RGB or RGBA."""
    try:
        with Image.open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageRefusedError(f"{source} has {image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,}")
            upright = ImageOps.exif_transpose(image)
            return upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except FileNotFoundError as error:
        raise ImageRefusedError(f"no such file: {source}") from error
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ImageRefusedError(f"{source} is not a picture that can be read") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's decoders raise for a truncated or damaged file
        raise ImageRefusedError(f"{source} cannot be read: {error}") from error


def _scaled(picture: Image.Image, size: int) -> Image.Image:
    """Return a copy whose longer edge is `size` pixels, or less if the picture is smaller."""
    copy = picture.copy()
    copy.thumbnail((size, size), Image.Resampling.LANCZOS)
    return copy


def _write(picture: Image.Image, target: Path, name: Format, quality: int) -> Output:
    with replacing(target) as file:
        match name:
            case "jpeg":
                _flattened(picture).save(file, "JPEG", quality=quality, optimize=True)
            case "webp":
                picture.save(file, "WEBP", quality=quality)
            case "png":
                picture.save(file, "PNG")
    return Output(str(target), picture.width, picture.height, target.stat().st_size)


def _flattened(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    canvas = Image.new("RGB", picture.size, BACKGROUND)
    canvas.paste(picture, mask=picture.getchannel("A"))
    return canvas
