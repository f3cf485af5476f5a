"""Files for a content delivery network: each under a name that carries its content's hash, and a manifest that lists them.

A name that changes with the content lets every cache keep a file for ever; what is read anew is the manifest alone. It is written
last, so that it never names a file that is not there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from examples.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

NAME_DIGITS: Final = 16
"""Hexadecimal digits of the hash in a name: 64 bits tell apart more files than a library has."""
CONTENT_TYPES: Final = {".jpg": "image/jpeg", ".webp": "image/webp"}
"""What the renditions are."""
FOR_EVER: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class PublishedFile:
    """A file as a CDN is to serve it.

    Attributes:
        name: What it was called.
        path: Where it lies, from the manifest's folder.
        content_type: Its media type.
        size_bytes: Its length.
        sha256: Of its content, in hexadecimal digits.
        integrity: The same for the `integrity` attribute of HTML.
        cache_control: The header to serve it with.
    """

    name: str
    path: str
    content_type: str
    size_bytes: int
    sha256: str
    integrity: str
    cache_control: str = FOR_EVER


@dataclass(frozen=True)
class Manifest:
    """What was published.

    Attributes:
        path: Where the manifest lies.
        files: What it lists, by name.
    """

    path: Path
    files: list[PublishedFile]


def publish(folder: Path, target: Path) -> Manifest:
    """Copy the files of a folder to the target, and write `<name of the folder>.json` there.

    Raises:
        OSError: A file cannot be read or written.
    """
    sources = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [_publish_one(source, target) for source in sources]
    path = target / f"{folder.name}.json"
    with replacing(path) as file:
        file.write(json.dumps({"files": [asdict(each) for each in files]}, indent=2).encode())
    return Manifest(path, files)


def _publish_one(source: Path, target: Path) -> PublishedFile:
    content = source.read_bytes()
    digest = hashlib.sha256(content)
    name = f"{source.stem}.{digest.hexdigest()[:NAME_DIGITS]}{source.suffix}"
    with replacing(target / "files" / name) as file:
        file.write(content)
    return PublishedFile(
        name=source.name,
        path=f"files/{name}",
        content_type=CONTENT_TYPES[source.suffix],
        size_bytes=len(content),
        sha256=digest.hexdigest(),
        integrity=f"sha256-{base64.b64encode(digest.digest()).decode()}",
    )
