"""Numbers that stop being finite: the run stops and reports, and good checkpoints stay as they were."""

import hashlib
import json
import math
from functools import partial
from pathlib import Path

import pytest
from support import VARIANTS
from training_trials import STEPS, call, make_root, one_line, outcome, states, train

BAD_STEP = 21  # between the checkpoints of 18 and 24; 22 ends an epoch


def poison(value: float) -> None:
    """Arm one pixel of step BAD_STEP's batch with a value that is not finite."""
    from vqlib import training
    from vqlib.batches import Images

    indices, batch, step = training.batch_indices, Images.batch, 0

    def noting(number: int, *arguments):
        nonlocal step
        step = number + 1
        return indices(number, *arguments)

    def poisoned(self, which):
        x = batch(self, which)
        if step == BAD_STEP:
            x[0, 0, 0, 0] = value
        return x

    training.batch_indices, Images.batch = noting, poisoned


def all_finite(root: Path) -> bool:
    from vqlib.checkpoints import load_state

    state = load_state(max(states(root)).parent, warn=pytest.fail)
    return all(tensor.isfinite().all() for tensor in state.tensors.values() if tensor.is_floating_point())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "variant", [pytest.param(variant, marks=() if variant == "vq" else pytest.mark.faults) for variant in VARIANTS]
)
def test_a_run_that_is_no_longer_finite_stops_and_reports(attempt, tmp_path, variant, value):
    root, whole = make_root(tmp_path / "root"), make_root(tmp_path / "whole")
    assert call(train, whole, variant).code == 0
    with attempt("training", "NaN or infinity at one step") as seen:
        line = one_line(call(train, root, variant, 1e-3, partial(poison, value)))
        assert f"{variant}-0: loss or gradients are not finite since step {BAD_STEP} of {STEPS}" in line
        found = states(root)
        assert [int(path.name[:9]) for path in found] == [6, 12, 18]
        assert all(path.stem[10:] == hashlib.sha256(content).hexdigest()[:32] for path, content in found.items())
        assert call(all_finite, root).value is True
        (report,) = root.glob("checkpoints/*/diverged.json")
        assert str(report) in line
        facts = json.loads(report.read_text())
        assert (facts["first_bad_step"], facts["learning_rate"], len(facts["batch"])) == (BAD_STEP, 1e-3, 4)
        assert {"codes_used_since_last_row", "statistics_now", "sums_since_last_row"} <= facts.keys()
        assert not outcome(root)
        ended = call(train, root, variant)
        assert "going on after step 18" in ended.errors
        assert outcome(root) == outcome(whole)
        seen("stopped with a report, checkpoints untouched, went on from them")
