"""Runnable examples: what a user reads and copies; nothing in `gopher/` imports them.

`media.py` is the app to start with (`gopher dev --app examples.media:registry`): the three job types `email`,
`image_processing` and `data_export`, whose work is done in `mail.py`, `images.py` and `exports.py`, each plain Python without
Gopher. `python -m examples.demo` (what `make demo` runs) shows them at work, from submit to result.
"""
