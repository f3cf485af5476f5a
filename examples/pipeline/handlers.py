"""The three job types of the pipeline, and how one follows another."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import gopher
from examples.images import ImageRefusedError
from examples.pipeline import metadata, publishing, renditions

registry = gopher.Registry()


@dataclass(frozen=True)
class Medium:
    """The payload of all three.

    Attributes:
        source: Path of a picture or animation, in any format Pillow reads.
        library: Folder of the catalogue and of all that is made.
    """

    source: str
    library: str

    @property
    def folder(self) -> Path:
        """Where its renditions lie: named by the source's content, so that no two sources share one."""
        return Path(self.library, "renditions", metadata.sha256(Path(self.source)))


@registry.handler("media_ingest", max_attempts=3, timeout_seconds=60, process=True)
def ingest(job: gopher.SyncJobContext, medium: Medium) -> gopher.JsonValue:
    """Read what the source says of itself and catalogue it."""
    try:
        found = metadata.extract(Path(medium.source))
    except ImageRefusedError as refusal:
        raise gopher.Discard(str(refusal)) from refusal
    metadata.store(Path(medium.library, "catalogue.sqlite"), found)
    job.submit("media_renditions", medium)
    return asdict(found)


@registry.handler("media_renditions", max_attempts=3, timeout_seconds=300, process=True)
def render(job: gopher.SyncJobContext, medium: Medium) -> gopher.JsonValue:
    """Write every rendition."""
    try:
        made = renditions.render(Path(medium.source), medium.folder, job.progress)
    except ImageRefusedError as refusal:
        raise gopher.Discard(str(refusal)) from refusal
    job.submit("media_publish", medium)
    return [path.name for path in made]


@registry.handler("media_publish", max_attempts=3, timeout_seconds=60, process=True)
def publish(_job: gopher.SyncJobContext, medium: Medium) -> gopher.JsonValue:
    """Prepare the renditions for distribution."""
    manifest = publishing.publish(medium.folder, Path(medium.library, "cdn"))
    return {"manifest": str(manifest.path), "files": [asdict(file) for file in manifest.files]}
