"""Runnable examples: what a user reads and copies; nothing in `gopher/` imports them.

`media.py` is the app to start with (`gopher dev --app examples.media:registry`): the three job types `email`,
`image_processing` and `data_export`, whose work is done in `mail.py`, `images.py` and `exports.py`, each plain Python without
Gopher. `python -m examples.demo` (what `make demo` runs) shows them at work, from submit to result.

Then the stories: `signup.py` (a web app and a welcome mail), `shop/` (an order that fans out), `pipeline/` (media) and `bank/`
(transactions, reports, risk). Each tells in its first lines how to run it; the README lists them.
"""
