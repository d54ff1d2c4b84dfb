"""Numbers in hand-written text: ``{{ projected-0.test.mse }}`` is looked up in the results, so none is typed.

A value is a path: a run (``vq-0.test.mse``), its prior (``vq-0.prior.rate.bpp_prior``) or its log
(``vq-0.training.burst``, and ``rise`` and ``grad_norm_max`` with the ``_step`` of either, ``grad_norm_median``,
``validation_least`` and ``validation_end``), a variant for the mean over its seeds (``vq.test.mse``;
``vq.test.mse.interval`` is half the 95 % interval of that mean, ``vq.seeds`` their number, ``vq.learning_rate`` theirs
as run names have it, 4e-3; ``projected.at_4_bits.psnr`` is the mean with continuous latents stored in 4 bits each:
``mse``, ``psnr``, ``ssim`` or ``bpp_bitstream``;
``projected.over.vq.low`` and ``projected.at_4_bits.over.vq.low`` are ratios of test MSE: ``value``, ``low`` or ``high``
of its interval; ``projected.tuned.over.vq.value`` and the like are of the runs at the learning rates that
validation chose) or the paper (``paper.vq.test.reconstruction``). Two values, or a value and a number, may stand around
``/``, ``*``, ``+`` or ``-`` with spaces: ``{{ vq-0.test.mse / projected-0.test.mse }}``. Four digits are shown, or as
many as ``{{ vq.test.psnr | 3 }}`` asks for. ``C1.ratio`` or ``C1.verdict`` is a claim's, spaces in its name being
underscores (``C1,_for_free.share``). In a text over several experiments the name of one stands before a run or variant
(``tiny_imagenet_32_small/vq.test.mse``).
"""

import functools
import math
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vqlib.errors import ReportError
from vqlib.params import nearest, short
from vqlib.reporting import paper
from vqlib.reporting.claims import CLAIMS, DISAGREEMENTS, judge_all
from vqlib.reporting.judging import Verdict
from vqlib.reporting.results import Results
from vqlib.reporting.statistics import numbers_of_log, ratio
from vqlib.reporting.tables import number

PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
OPERATORS = {"/": operator.truediv, "*": operator.mul, "+": operator.add, "-": operator.sub}
CLAIMED = {claim.name: claim for claim in (*CLAIMS, *DISAGREEMENTS)}
AT_BITS = re.compile(r"at_(\d+)_bits")
DIGITS = ("1", "2", "3", "4", "5", "6")
NOTE = "*Template"  # how the first line of a file begins that tells its readers where to read it with numbers


def template(path: Path) -> str:
    """A hand-written text, without the line that says that it is a template."""
    first, _, rest = path.read_text().partition("\n")
    return rest if first.startswith(NOTE) else f"{first}\n{rest}"


def fill_in(text: str, results: Results, where: str) -> str:
    """``text`` with every placeholder replaced. ``where`` names the text in errors.

    Raises:
        ReportError: a placeholder names something that the results do not hold.
    """
    verdict = _judge([results])

    def look_up(path: str) -> float | int | str:
        if _claim(path) in CLAIMED:
            return _of_verdict(path, verdict(_claim(path)), where)
        return _look_up(path, results, where)

    return _replaced(text, look_up, where)


def fill_in_study(text: str, experiments: Sequence[Results], where: str) -> str:
    """The same over several experiments and the verdicts that they allow together.

    Raises:
        ReportError: a placeholder names something that they do not hold.
    """
    by_name = {results.experiment.name: results for results in experiments}
    verdict = _judge(experiments)

    def look_up(path: str) -> float | int | str:
        name, slash, rest = path.partition("/")
        if slash and name in by_name:
            return _look_up(rest, by_name[name], where)
        if _claim(path) in CLAIMED:
            return _of_verdict(path, verdict(_claim(path)), where)
        raise ReportError(f"{where}: {path} is not in the results{nearest(name, [*by_name, *CLAIMED])}")

    return _replaced(text, look_up, where)


def _replaced(text: str, look_up: Callable, where: str) -> str:
    return PLACEHOLDER.sub(lambda match: _value(match[1], match[0], where, look_up), text)


def _claim(path: str) -> str:
    """The name of the claim that ``path`` would begin with."""
    return path.partition(".")[0].replace("_", " ")


def _of_verdict(path: str, verdict: Verdict, where: str) -> float | str:
    key, found = path.partition(".")[2], {"verdict": verdict.said, **verdict.numbers}
    if key not in found:
        raise ReportError(f"{where}: {path} is not a number of that verdict{nearest(key, found)}")
    return found[key]


def _judge(experiments: Sequence[Results]) -> Callable[[str], Verdict]:
    """From the name of a claim to its verdict; each is judged once, when it is first asked for."""
    return functools.cache(lambda name: judge_all(experiments, [CLAIMED[name]])[name])


def _value(asked: str, placeholder: str, where: str, look_up: Callable) -> str:
    expression, bar, wanted = asked.partition("|")
    if bar and wanted.strip() not in DIGITS:
        raise ReportError(f"{where}: {placeholder} must have a number of digits after the bar: {' '.join(DIGITS)}")
    digits = int(wanted) if bar else 4

    def read(word: str) -> float | int | str:
        try:
            value = float(word)
        except ValueError:
            return look_up(word)
        if not math.isfinite(value):
            raise ReportError(f"{where}: {placeholder}: {word} is not finite")
        return value

    words = expression.split()
    if len(words) == 1:
        value = read(words[0])
        return value if isinstance(value, str) else number(value, digits)
    if len(words) != 3 or words[1] not in OPERATORS:
        raise ReportError(f"{where}: {placeholder} must be one value, or two around one of {' '.join(OPERATORS)}")
    left, right = (read(word) for word in (words[0], words[2]))
    if isinstance(left, str) or isinstance(right, str):
        raise ReportError(f"{where}: {placeholder} calculates with text; both sides must be numbers")
    if words[1] == "/" and right == 0:
        raise ReportError(f"{where}: {placeholder} divides by zero")
    return number(float(OPERATORS[words[1]](left, right)), digits)


def _look_up(path: str, results: Results, where: str) -> float | int | str:
    first, *rest = path.split(".")
    if first in results.models:
        return _of_model(first, rest, path, results, where)
    return _of_run(first, rest, path, results, where)


def _of_model(model: str, rest: list[str], path: str, results: Results, where: str) -> float | int | str:
    """What ``rest`` names of the seeds of ``model``."""
    match rest:
        case ["seeds"]:
            return len(results.runs_of(model))
        case ["learning_rate"]:
            return short(results.mean(model, "learning_rate"))  # one of all seeds, by params.yaml
        case ["tuned", *number_of_it]:
            own = results.tuned()
            if model not in own.models or not number_of_it:
                raise ReportError(f"{where}: {path} needs {model} at several learning rates, and a number of it")
            return _of_model(model, number_of_it, path, own, where)
        case [first, *of_it] if bits := AT_BITS.fullmatch(first):
            return _at_bits(int(bits[1]), model, of_it, path, results, where)
        case ["over", other, part]:
            return _of_ratio(results.seeds(model, "test.mse").to_numpy(), other, part, path, results, where)
        case [*column, "interval"] if _is_number(results, model, column):
            value, lacking = results.interval(model, ".".join(column)), f"needs several seeds of {model}"
        case _:
            value = results.mean(model, ".".join(rest)) if _is_number(results, model, rest) else math.nan
            lacking = f"is not a number of the variant {model}"
    if math.isnan(value):
        raise ReportError(f"{where}: {path} {lacking}")
    return value


def _at_bits(bits: int, model: str, rest: list[str], path: str, results: Results, where: str) -> float:
    """The mean over seeds, or the ratio, of a model whose continuous latents are stored in ``bits`` each."""
    curve = results.precisions(model)
    points = curve[curve["bits"] == bits]
    match rest:
        case ["over", other, part] if len(points):
            return _of_ratio(points["mse"].to_numpy(), other, part, path, results, where)
        case [column] if column in curve and len(points):
            return float(points[column].mean())
    stored = ", ".join(f"at_{bits}_bits" for bits in sorted(set(curve["bits"]))) or "none"
    raise ReportError(f"{where}: {path} is not a number of the precisions of {model}, which has {stored}")


def _of_ratio(errors: np.ndarray, other: str, part: str, path: str, results: Results, where: str) -> float:
    """Of test errors over those of the model ``other``: ``part`` of the ratio."""
    if other not in results.models:
        raise ReportError(f"{where}: {path} is over no model of the results{nearest(other, results.models)}")
    value = vars(ratio(errors, results.seeds(other, "test.mse").to_numpy())).get(part, math.nan)
    if math.isnan(value):
        raise ReportError(f"{where}: {path} must end in value, or with three seeds of both in low or high")
    return value


def _of_run(first: str, rest: list[str], path: str, results: Results, where: str) -> float | int | str:
    """What ``rest`` names of the run ``first``, or of the paper."""
    value: object = {run: {**of, "prior": results.priors.get(run, {})} for run, of in results.evaluations.items()}
    value |= {"paper": paper.LOSSES}
    if first in results.evaluations and rest[:1] == ["training"]:
        value[first] |= {"training": numbers_of_log(results.of(first))}
    walked = []
    for key in [first, *rest]:
        if not isinstance(value, dict) or key not in value:
            known = nearest(key, value) if isinstance(value, dict) else f"; {'.'.join(walked)} holds one value"
            raise ReportError(f"{where}: {path} is not in the results: no {key!r}{known}")
        value = value[key]
        walked.append(key)
    if value is None or isinstance(value, (dict, list)):
        raise ReportError(f"{where}: {path} is {'null' if value is None else 'not one value'} in the results")
    return value


def _is_number(results: Results, model: str, rest: list[str]) -> bool:
    column = ".".join(rest)
    return column in results.runs and results.runs[column].map(lambda item: isinstance(item, (int, float))).any()
