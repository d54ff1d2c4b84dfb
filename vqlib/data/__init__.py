"""Images in, through one door: ``prepare`` a source once, ``open_split`` it to train, ``verify`` every byte of it."""

from vqlib.data.checks import verify
from vqlib.data.reader import Split, open_split
from vqlib.data.writer import prepare

__all__ = ["Split", "open_split", "prepare", "verify"]
