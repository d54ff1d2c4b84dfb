"""Numbers in hand-written text: ``{{ projected-0.test.mse }}`` is looked up in the results, so none is typed.

A value is a path: a run (``vq-0.test.mse``), a variant for the mean over its seeds (``vq.test.mse``) or the paper
(``paper.vq.test.reconstruction``). Two values, or a value and a number, may stand around ``/``, ``*``, ``+`` or ``-``
with spaces: ``{{ vq-0.test.mse / projected-0.test.mse }}``.
"""

import math
import operator
import re

from vqlib.errors import ReportError
from vqlib.params import nearest
from vqlib.reporting import paper
from vqlib.reporting.results import Results
from vqlib.reporting.tables import number

PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
OPERATORS = {"/": operator.truediv, "*": operator.mul, "+": operator.add, "-": operator.sub}


def fill_in(text: str, results: Results, where: str) -> str:
    """``text`` with every placeholder replaced. ``where`` names the text in errors.

    Raises:
        ReportError: a placeholder names something that the results do not hold.
    """
    return PLACEHOLDER.sub(lambda match: _value(match[1].split(), match[0], results, where), text)


def _value(words: list[str], placeholder: str, results: Results, where: str) -> str:
    if len(words) == 1:
        value = _look_up(words[0], results, where)
        return value if isinstance(value, str) else number(value)
    if len(words) != 3 or words[1] not in OPERATORS:
        raise ReportError(f"{where}: {placeholder} must be one value, or two around one of {' '.join(OPERATORS)}")
    left, right = (_look_up(word, results, where) for word in (words[0], words[2]))
    if isinstance(left, str) or isinstance(right, str):
        raise ReportError(f"{where}: {placeholder} calculates with text; both sides must be numbers")
    if words[1] == "/" and right == 0:
        raise ReportError(f"{where}: {placeholder} divides by zero")
    return number(float(OPERATORS[words[1]](left, right)))


def _look_up(path: str, results: Results, where: str) -> float | int | str:
    try:
        return float(path)
    except ValueError:
        first, *rest = path.split(".")
    if first in results.models:
        value = results.mean(first, ".".join(rest)) if _is_number(results, first, rest) else math.nan
        if math.isnan(value):
            raise ReportError(f"{where}: {path} is not a number of the variant {first}")
        return value
    value, walked = {**results.evaluations, "paper": paper.LOSSES}, []
    for key in [first, *rest]:
        if not isinstance(value, dict) or key not in value:
            known = nearest(key, value) if isinstance(value, dict) else f"; {'.'.join(walked)} holds one value"
            raise ReportError(f"{where}: {path} is not in the results: no {key!r}{known}")
        value = value[key]
        walked.append(key)
    if value is None or isinstance(value, dict):
        raise ReportError(f"{where}: {path} is {'null' if value is None else 'not one value'} in the results")
    return value


def _is_number(results: Results, model: str, rest: list[str]) -> bool:
    column = ".".join(rest)
    return column in results.runs and results.runs[column].map(lambda item: isinstance(item, (int, float))).any()
