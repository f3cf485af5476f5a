"""`examples.images`: pictures scaled to several sizes and formats, with Pillow."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from PIL import Image, ImageDraw

from examples.images import ImageRefusedError, ImageRequest, resize


def ignore(share: float, what: str) -> None:
    pass


def request_for(source: Path, output_dir: Path, **options: object) -> ImageRequest:
    return msgspec.convert({"source": str(source), "output_dir": str(output_dir), "sizes": [40], **options}, ImageRequest)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    picture = Image.new("RGB", (200, 100), "navy")
    ImageDraw.Draw(picture).ellipse((50, 10, 150, 90), fill="orange")
    picture.save(path)
    return path


def test_resize_writes_each_size_in_each_format(photo: Path, tmp_path: Path) -> None:
    """Each output exists as a picture of the format, the dimensions and the length that the result states."""
    request = request_for(photo, tmp_path / "out", sizes=[100, 40, 100], formats=["jpeg", "webp", "png"])

    outputs = resize(request, ignore)

    assert [Path(output.path).name for output in outputs] == [
        "photo-100.jpg", "photo-100.webp", "photo-100.png", "photo-40.jpg", "photo-40.webp", "photo-40.png",
    ]  # fmt: skip  # one size a line reads worse
    for output in outputs:
        with Image.open(output.path) as picture:
            assert picture.size == (output.width, output.height)
            assert picture.format == {".jpg": "JPEG", ".webp": "WEBP", ".png": "PNG"}[Path(output.path).suffix]
        assert Path(output.path).stat().st_size == output.size_bytes
    assert {(output.width, output.height) for output in outputs} == {(100, 50), (40, 20)}


def test_resize_reports_the_share_done(photo: Path, tmp_path: Path) -> None:
    """One report an output, rising to 1."""
    reports: list[tuple[float, str]] = []

    resize(request_for(photo, tmp_path, sizes=[100, 40]), lambda share, what: reports.append((share, what)))

    assert reports == [(0.5, "photo-100.jpg"), (1.0, "photo-40.jpg")]


def test_resize_never_enlarges(photo: Path, tmp_path: Path) -> None:
    """A size above the source's gives the source's own dimensions."""
    (output,) = resize(request_for(photo, tmp_path / "out", sizes=[4000]), ignore)

    assert (output.width, output.height) == (200, 100)


def test_resize_lays_transparency_on_white_for_jpeg_only(tmp_path: Path) -> None:
    """What is clear turns white in JPEG and stays clear in PNG."""
    source = tmp_path / "clear.png"
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(source)

    jpeg, png = resize(request_for(source, tmp_path / "out", sizes=[8], formats=["jpeg", "png"]), ignore)

    with Image.open(jpeg.path) as picture:
        assert picture.getpixel((4, 4)) == (255, 255, 255)
    with Image.open(png.path) as picture:
        assert picture.convert("RGBA").getchannel("A").getextrema() == (0, 0)


def test_resize_turns_a_photograph_upright(tmp_path: Path) -> None:
    """The camera's orientation mark is applied, so that the output needs none."""
    source = tmp_path / "turned.jpg"
    marks = Image.Exif()
    marks[0x0112] = 6  # "turn by 90 degrees to see it upright"
    Image.new("RGB", (200, 100), "navy").save(source, exif=marks)

    (output,) = resize(request_for(source, tmp_path / "out", sizes=[100]), ignore)

    assert (output.width, output.height) == (50, 100)


def test_resize_twice_gives_the_same_files(photo: Path, tmp_path: Path) -> None:
    """A repeated attempt replaces its predecessor's outputs and leaves nothing else."""
    request = request_for(photo, tmp_path / "out", formats=["png"])
    first = resize(request, ignore)
    content = Path(first[0].path).read_bytes()

    second = resize(request, ignore)

    assert second == first
    assert Path(first[0].path).read_bytes() == content
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_resize_refuses_a_missing_source(tmp_path: Path) -> None:
    """The path that does not exist is named."""
    with pytest.raises(ImageRefusedError, match=r"^no such file: .*gone\.png$"):
        resize(request_for(tmp_path / "gone.png", tmp_path / "out"), ignore)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 64])
def test_resize_refuses_what_is_no_picture(tmp_path: Path, content: bytes) -> None:
    """A file that Pillow cannot read is refused in one line, with no output."""
    source = tmp_path / "odd.png"
    source.write_bytes(content)

    with pytest.raises(ImageRefusedError, match=r"odd\.png"):
        resize(request_for(source, tmp_path / "out"), ignore)

    assert not (tmp_path / "out").exists()


def test_resize_refuses_a_truncated_picture(photo: Path, tmp_path: Path) -> None:
    """A download that broke off is no picture."""
    photo.write_bytes(photo.read_bytes()[:-200])

    with pytest.raises(ImageRefusedError, match=r"photo\.png cannot be read"):
        resize(request_for(photo, tmp_path / "out"), ignore)


def test_resize_refuses_too_many_pixels_before_it_decodes(tmp_path: Path) -> None:
    """A small file that would unpack to gigabytes is refused by its header."""
    source = tmp_path / "bomb.png"
    Image.new("1", (40_000, 2_001)).save(source)

    with pytest.raises(ImageRefusedError, match=r"has 40000 x 2001 pixels; the limit is 80,000,000$"):
        resize(request_for(source, tmp_path / "out"), ignore)


@pytest.mark.parametrize(
    ("field", "value"),
    [("sizes", []), ("sizes", [0]), ("sizes", [8193]), ("formats", ["bmp"]), ("formats", []), ("quality", 0), ("quality", 100)],
)
def test_image_payload_refuses_what_is_out_of_range(field: str, value: int | list[int] | list[str]) -> None:
    """Sizes, formats and quality out of range are refused by the type, with the field's path."""
    with pytest.raises(msgspec.ValidationError, match=rf"at `\$\.{field}(\[[^\]]*\])?`$"):
        request_for(Path("photo.png"), Path("out"), **{field: value})
