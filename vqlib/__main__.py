"""The pipeline's steps without notebooks, where DVC and Jupyter are missing: ``python -m vqlib train sample vq-0``."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from vqlib.errors import ParameterError, UserError
from vqlib.files import in_one_line
from vqlib.params import Experiment, Run, check_experiments, load_experiment


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or with one line on standard error 2 for a user's mistake and 130 for a signal."""
    reader = parser()
    try:
        given, options = reader.parse_known_args(arguments)
        if options and given.do is not train:
            reader.error(f"unrecognized arguments: {' '.join(options)}")
        given.options = options
        return given.do(given) or 0
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


def parser() -> argparse.ArgumentParser:
    """Reads the command line; ``do`` of what it gives is the command's function, which takes it."""
    reader = argparse.ArgumentParser(prog="python -m vqlib", description=__doc__)
    commands = reader.add_subparsers(dest="command", required=True)

    def command(do: Callable[[argparse.Namespace], int | None], does: str, *arguments: str) -> argparse.ArgumentParser:
        described = commands.add_parser(do.__name__, help=does, description=does)
        described.set_defaults(do=do)
        for name in arguments:
            described.add_argument(name, help="<variant>-<seed>" if name == "run" else None)
        return described

    checks = command(check, "read the params.yaml that DVC reads, and say what is wrong in one")
    checks.add_argument("experiment", nargs="?", help="whose params.yaml is read, too")
    checks.add_argument("run", nargs="?", help="that is to be one of its runs")
    command(prepare, "make the arrays of an experiment", "experiment")
    training = command(train, "train one of its runs", "experiment", "run")
    training.epilog = "Options of torchrun may follow, for several machines."
    command(evaluate, "measure the weights that a run left", "experiment", "run")
    command(codecs, "measure JPEG and WebP on its test images", "experiment")
    command(prior, "train the prior of a run and measure it", "experiment", "run")
    drawing = command(sample, "draw new images from it and write them as a PNG", "experiment", "run")
    drawing.add_argument("--class", dest="class_name", help="name of a class; without it, of all in turn")
    temperature = number("temperature", float, 1e-6, 10)
    drawing.add_argument("--temperature", type=temperature, default=1.0, help="under 1: likelier, more alike")
    drawing.add_argument("--seed", type=number("seed", int, 0, 2**31 - 1), default=0)
    drawing.add_argument("--count", type=number("count", int, 1, 1024), default=64)
    again = "the samples of the report's picture, whatever else is given"
    drawing.add_argument("--as-in-report", action="store_true", help=again)
    drawing.add_argument("--to", type=png, help="the PNG; <experiment>-<run>.png when it is not given")
    command(report, "draw its report from results/", "experiment")
    return reader


def check(given: argparse.Namespace) -> None:
    check_experiments(given.experiment)
    if given.run:
        load_experiment(given.experiment).run(given.run)


def prepare(given: argparse.Namespace) -> int:
    from vqlib.data.__main__ import main as of_data

    return of_data(["prepare", given.experiment])


def train(given: argparse.Namespace) -> None:
    experiment, run = asked(given)
    from vqlib import launch, runs

    if given.options:
        launch.train_on_machines(experiment, run, given.options)
    else:
        runs.train_run(experiment, run)


def evaluate(given: argparse.Namespace) -> None:
    experiment, run = asked(given)
    from vqlib.runs import evaluate_run

    evaluate_run(experiment, run)


def codecs(given: argparse.Namespace) -> None:
    experiment = load_experiment(given.experiment)
    from vqlib.codecs import write_codecs

    write_codecs(experiment)


def prior(given: argparse.Namespace) -> None:
    experiment, run = asked(given)
    from vqlib.priors.runs import train_prior_run

    train_prior_run(experiment, run)


def sample(given: argparse.Namespace) -> None:
    experiment, run = asked(given)
    from vqlib.priors.drawing import write_samples

    target = given.to or Path(f"{experiment.name}-{run.name}.png")
    print(write_samples(experiment, run, target, given.class_name, given.temperature, given.seed, given.count,
                        as_in_report=given.as_in_report))  # fmt: skip


def report(given: argparse.Namespace) -> None:
    experiment = load_experiment(given.experiment)
    from vqlib.reporting.exhibits import all_exhibits
    from vqlib.reporting.report import write_report
    from vqlib.reporting.results import load_results

    results = load_results(experiment.name)
    with in_one_line(experiment.reports):
        print(write_report(results, all_exhibits(results)))


def asked(given: argparse.Namespace) -> tuple[Experiment, Run]:
    experiment = load_experiment(given.experiment)
    return experiment, experiment.run(given.run)


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
