"""``python -m vqlib.data prepare EXPERIMENT`` and ``python -m vqlib.data verify DIR``."""

import argparse
import sys
from pathlib import Path

from vqlib.data import prepare, verify
from vqlib.errors import UserError
from vqlib.params import load_experiment
from vqlib.progress import say


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vqlib.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare", help="make the prepared array of an experiment, or go on making it")
    preparing.add_argument("experiment", help="its name, such as sample")
    preparing.add_argument(
        "--workers", type=int, metavar="N", help="processes that decode (as many as there are cores)"
    )
    verifying = commands.add_parser("verify", help="check every byte of a prepared folder")
    verifying.add_argument("folder", type=Path, metavar="DIR", help="such as data/prepared/sample")
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "verify":
            manifest = verify(asked.folder, say)
        else:
            experiment = load_experiment(asked.experiment)
            manifest = prepare(experiment.data, experiment.prepared, experiment.root, asked.workers, say)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished chunks are kept, and the same command goes on from there", file=sys.stderr)
        return 130
    counts = ", ".join(f"{name} {split['count']:,}" for name, split in manifest["splits"].items())
    dropped = sum(map(len, manifest["dropped"].values()))
    print(f"{counts}; {dropped} images dropped; digest {manifest['digest'][:12]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
