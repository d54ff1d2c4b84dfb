"""How far a long piece of work is: a bar where a person watches, else a line now and then."""

import os
import sys
import time

from tqdm import tqdm


class Progress:
    """``update(done, note)`` as often as you like; lines come at most every ``seconds``, on standard error.

    A person watches where standard error is a terminal, or in a notebook that no pipeline runs.
    """

    def __init__(self, name: str, total: int, unit: str, start: int = 0, seconds: float = 10):
        self.name, self.total, self.unit, self.start, self.seconds = name, total, unit, start, seconds
        self.began = self.last = time.monotonic()
        watched = sys.stderr.isatty() or ("ipykernel" in sys.modules and "VQLIB_PIPELINE" not in os.environ)
        self.bar = tqdm(total=total, initial=start, desc=name, unit=f" {unit}", unit_scale=True) if watched else None

    def update(self, done: int, note: str = "") -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.last >= self.seconds or done == self.total:
            self.last = now
            rate = (done - self.start) / max(now - self.began, 1e-9)
            left = (self.total - done) / rate if rate > 0 else 0
            self.say(f"{self.name}: {done:,}/{self.total:,} {self.unit} ({done / self.total:.0%}), "
                     f"{rate:,.0f} {self.unit}/s, {left / 60:.1f} min left{'; ' if note else ''}{note}")  # fmt: skip

    def say(self, line: str) -> None:
        """One line, whatever the time."""
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
