"""Measure how fast things are, and write the page: ``python -m benchmarks [PART ...]``.

Each part writes results/benchmarks/<part>_<device>.json; reports/benchmarks/ is drawn from these alone (``--page``
draws and measures nothing). Without options it measures what the page shows. Keep the machine otherwise idle.
"""

import argparse
import sys
from pathlib import Path

from vqlib.errors import ParameterError, UserError
from vqlib.files import in_one_line
from vqlib.params import ROOT, load_experiment

PARTS = ("step", "bottlenecks", "search", "around", "growth", "prior_sampling")
MOST_THREADS = 1024


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line for a user's mistake. Imports torch after it has found none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all where none is named")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="of the CPU; all where none is given")
    parser.add_argument("--experiment", default="tiny_imagenet_32_sweep",
                        help="whose images and models are real ones for the part step (default: %(default)s, which "
                        "data/README.md says how to get; sample needs nothing)")  # fmt: skip
    parser.add_argument("--small", action="store_true", help="sizes of a test, which say nothing about speed")
    parser.add_argument("--page", action="store_true", help="draw the page from the results that there are")
    parser.add_argument("--into", type=Path, default=ROOT, help="the folder with results/ and reports/")
    given = parser.parse_args(arguments)
    try:
        if unknown := set(given.parts) - set(PARTS):
            raise UserError(f"part {min(unknown)!r} is not known; it may be one of {', '.join(PARTS)}")
        if given.threads is not None and not 1 <= given.threads <= MOST_THREADS:
            raise ParameterError(f"--threads is {given.threads}; it must be a whole number from 1 to {MOST_THREADS:,}, "
                                 "and without it all are used")  # fmt: skip
        load_experiment(given.experiment)  # a mistake in its name ends here
        from benchmarks.page import write_page
        from benchmarks.run import write_part

        results = given.into / "results" / "benchmarks"
        with in_one_line(given.into):
            for part in () if given.page else given.parts or PARTS:
                results.mkdir(parents=True, exist_ok=True)  # or an end before it has measured for minutes
                print(f"{part} ...", file=sys.stderr, flush=True)
                write_part(results, part, given.device, given.threads, given.small, given.experiment)
            print(write_page(results, given.into / "reports" / "benchmarks"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
