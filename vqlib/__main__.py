"""The pipeline's steps without notebooks: ``python -m vqlib train sample vq-0``, for machines that have torch alone."""

import argparse
import sys

from vqlib.errors import UserError
from vqlib.files import in_one_line
from vqlib.params import load_experiment


def left_for_parent(error: UserError) -> bool:
    from vqlib.launch import leave_reason

    return leave_reason(error)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on standard error for a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m vqlib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, does in (
        ("prepare", "make the arrays of an experiment"),
        ("train", "train one of its runs"),
        ("evaluate", "measure the weights that a run left"),
        ("codecs", "measure JPEG and WebP on its test images"),
        ("report", "draw its report from results/"),
    ):
        described = commands.add_parser(command, help=does, description=does)
        described.add_argument("experiment")
        if command in ("train", "evaluate"):
            described.add_argument("run", help="<variant>-<seed>")
    given = parser.parse_args(arguments)
    try:
        experiment = load_experiment(given.experiment)
        if given.command == "prepare":
            from vqlib.data import prepare

            prepare(experiment.data, experiment.prepared, progress=lambda line: print(line, file=sys.stderr))
        elif given.command == "codecs":
            from vqlib.codecs import write_codecs

            write_codecs(experiment)
        elif given.command == "report":
            from vqlib.reporting.report import write_report

            with in_one_line(experiment.reports):
                print(write_report(experiment.name))
        else:
            run = experiment.run(given.run)
            from vqlib import runs

            (runs.train_run if given.command == "train" else runs.evaluate_run)(experiment, run)
    except UserError as error:
        if not ("torch" in sys.modules and left_for_parent(error)):
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what is saved", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
