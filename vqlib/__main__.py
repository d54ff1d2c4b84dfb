"""The pipeline's steps without notebooks, where DVC and Jupyter are missing: ``python -m vqlib train sample vq-0``."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from vqlib.errors import ParameterError, UserError
from vqlib.files import in_one_line
from vqlib.params import check_experiments, load_experiment


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or with one line on standard error 2 for a user's mistake and 130 for a signal."""
    parser = argparse.ArgumentParser(prog="python -m vqlib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checking = "read the params.yaml that DVC reads, and say what is wrong in one"
    checks = commands.add_parser("check", help=checking, description=checking)
    checks.add_argument("experiment", nargs="?", help="whose params.yaml is read, too")
    checks.add_argument("run", nargs="?", help="that is to be one of its runs")
    for command, does in (
        ("prepare", "make the arrays of an experiment"),
        ("train", "train one of its runs"),
        ("evaluate", "measure the weights that a run left"),
        ("codecs", "measure JPEG and WebP on its test images"),
        ("prior", "train the prior of a run and measure it"),
        ("sample", "draw new images from it and write them as a PNG"),
        ("report", "draw its report from results/"),
    ):
        more = "Options of torchrun may follow, for several machines." if command == "train" else None
        described = commands.add_parser(command, help=does, description=does, epilog=more)
        described.add_argument("experiment")
        if command in ("train", "evaluate", "prior", "sample"):
            described.add_argument("run", help="<variant>-<seed>")
        if command == "sample":
            described.add_argument("--class", dest="class_name", help="name of a class; without it, of all in turn")
            temperature = number("temperature", float, 1e-6, 10)
            described.add_argument("--temperature", type=temperature, default=1.0, help="under 1: likelier, more alike")
            described.add_argument("--seed", type=number("seed", int, 0, 2**31 - 1), default=0)
            described.add_argument("--count", type=number("count", int, 1, 1024), default=64)
            again = "the samples of the report's picture, whatever else is given"
            described.add_argument("--as-in-report", action="store_true", help=again)
            described.add_argument("--to", type=png, help="the PNG; <experiment>-<run>.png when it is not given")
    try:
        given, options = parser.parse_known_args(arguments)
        if options and given.command != "train":
            parser.error(f"unrecognized arguments: {' '.join(options)}")
        if given.command == "check":
            check_experiments(given.experiment)
            if given.run:
                load_experiment(given.experiment).run(given.run)
            return 0
        if given.command == "prepare":
            from vqlib.data.__main__ import main as of_data

            return of_data(["prepare", given.experiment])
        experiment = load_experiment(given.experiment)
        if given.command == "codecs":
            from vqlib.codecs import write_codecs

            write_codecs(experiment)
        elif given.command == "report":
            from vqlib.reporting.exhibits import all_exhibits
            from vqlib.reporting.report import write_report
            from vqlib.reporting.results import load_results

            results = load_results(experiment.name)
            with in_one_line(experiment.reports):
                print(write_report(results, all_exhibits(results)))
        elif given.command in ("prior", "sample"):
            run = experiment.run(given.run)
            if given.command == "prior":
                from vqlib.priors.runs import train_prior_run

                train_prior_run(experiment, run)
            else:
                from vqlib.priors.drawing import write_samples

                target = given.to or Path(f"{experiment.name}-{run.name}.png")
                print(write_samples(experiment, run, target, given.class_name, given.temperature, given.seed,
                                    given.count, as_in_report=given.as_in_report))  # fmt: skip
        else:
            run = experiment.run(given.run)
            from vqlib import launch, runs

            if options:
                launch.train_on_machines(experiment, run, options)
            else:
                (runs.train_run if given.command == "train" else runs.evaluate_run)(experiment, run)
    except (UserError, KeyboardInterrupt) as error:
        stopped = isinstance(error, KeyboardInterrupt)
        if "VQLIB_OUTCOME" in os.environ:  # vqlib.launch started this process, and says it
            from vqlib.launch import leave_reason

            leave_reason(error)
        elif stopped:
            print(f"{str(error) or 'stopped before it could save'}; the same command goes on from what is saved",
                  file=sys.stderr)  # fmt: skip
        else:
            print(f"error: {error}", file=sys.stderr)
        return 130 if stopped else 2
    return 0


def number(name: str, kind: type, low: float, high: float) -> Callable[[str], float]:
    """What reads the option ``name``: an int or float from ``low`` to ``high``."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            of = "a whole number" if kind is int else "a number"
            raise ParameterError(f"{name} is {text}; it must be {of} from {low:,} to {high:,}")
        return value

    return read


def png(text: str) -> Path:
    """Reads the option ``--to``."""
    if Path(text).suffix.lower() != ".png":
        raise ParameterError(f"--to is {text}; it must be the name of a file that ends in .png")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
