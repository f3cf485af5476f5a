"""A media pipeline: metadata, then renditions and thumbnails, then files ready for a content delivery network.

    gopher dev --app examples.pipeline:registry
    gopher submit media_ingest -p '{"source": "photo.jpg", "library": "library"}' --watch

Three job types, each submitting the next together with its own completion:

- `media_ingest` reads size, format, EXIF and SHA-256 of the source and keeps them in `library/catalogue.sqlite`;
- `media_renditions` writes the picture in several sizes and formats and a square thumbnail; an animation (GIF, WebP, APNG) becomes
  animated WebP of several sizes and a still poster;
- `media_publish` copies all of it under names that carry the content's hash, so that caches may keep them for ever, and writes
  `library/cdn/HASH.json`, the manifest that a web page or an upload to a CDN reads.

The three run in processes of their own: decoding keeps a core busy, and a cancel ends it at once. What is not here is video with
sound: it needs ffmpeg, which no Python package replaces. An animation goes the same way, frame by frame.
Read on in `handlers`, then `metadata`, `renditions`, `publishing`, which know nothing of Gopher.
"""

from __future__ import annotations

from examples.pipeline.handlers import registry

__all__ = ["registry"]
