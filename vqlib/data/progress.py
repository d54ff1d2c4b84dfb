"""One line of text per interval: how much is done, how fast, how long it will take."""

import time
from collections.abc import Callable

Say = Callable[[str], None]


class Progress:
    """Counts images and says so every ``interval`` seconds, and once at the end."""

    def __init__(self, what: str, total: int, say: Say | None, interval: float = 2.0):
        self.what, self.total, self.say, self.interval = what, total, say, interval
        self.done, self.start = 0, time.monotonic()
        self.last = self.start

    def add(self, images: int) -> None:
        self.done += images
        now = time.monotonic()
        if self.say and (self.done == self.total or now - self.last >= self.interval):
            self.last = now
            rate = self.done / max(now - self.start, 1e-3)
            left = (self.total - self.done) / max(rate, 1e-3)
            self.say(f"{self.what} {self.done:,} of {self.total:,} images, {rate:,.0f} a second, {left:,.0f} s left")
