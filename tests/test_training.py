"""The training loop: resume, data order, divergence, what it logs."""

import itertools

import pytest
import torch
from support import KINDS, NETWORK, ONE_OF_EACH, VARIANTS, make_experiment, make_run, make_split

from vqlib.batches import Images
from vqlib.checkpoints import load_state, save_state
from vqlib.errors import DataError, DivergedError, ParameterError
from vqlib.model import make_model
from vqlib.params import Network
from vqlib.training import COLUMNS, batch_indices, seed_of, train, validate

CPU = torch.device("cpu")
TRAIN, VALIDATION = make_split(22, seed=1), make_split(7, seed=2, name="validation")
BUDGET = {"steps": 13, "batch_size": 4, "log_every": 4, "checkpoint_every": 3}  # 5 steps an epoch, 2 images left over


class Killed(Exception):
    pass


def trained(variant: str = "vq", seed: int = 0, precision=torch.float32, split=TRAIN, run=None, **options):
    budget = {key: options.pop(key) for key in tuple(options) if key not in ("resume", "save", "progress")}
    experiment = make_experiment(**{**BUDGET, **budget})
    return train(experiment, run or make_run(variant, seed), split, VALIDATION, CPU, precision, **options)


def interrupted(folder, variant: str, precision, after: int):
    """A run that is killed right after it saved step ``after``; its newest checkpoint, from disk."""

    def save(state):
        save_state(folder, state)
        if state.step == after:
            raise Killed

    with pytest.raises(Killed):
        trained(variant, precision=precision, save=save)
    state = load_state(folder, warn=pytest.fail)
    assert state.step == after
    return state


def same(a, b) -> bool:
    """Two trainings with the same result to the bit."""
    return (
        a.best_step == b.best_step
        and a.history == b.history
        and a.weights.keys() == b.weights.keys()
        and all(torch.equal(a.weights[key], b.weights[key]) for key in a.weights)
    )


@pytest.mark.parametrize(
    ("variant", "precision"), [*((name, torch.float32) for name in KINDS), ("vq", torch.bfloat16)], ids=str
)
def test_a_resumed_run_ends_as_one_that_never_stopped(tmp_path, variant, precision):
    whole = trained(variant, precision=precision)
    resumed = trained(variant, precision=precision, resume=interrupted(tmp_path, variant, precision, after=9))
    assert same(resumed, whole)  # 9 is neither the end of a log interval (8, 12) nor of an epoch (10)


def test_the_comparison_of_runs_sees_seed_and_optimizer(tmp_path):
    whole = trained()
    assert same(trained(), whole)
    assert not same(trained(seed=1), whole)
    state = interrupted(tmp_path, "vq", torch.float32, after=9)
    state.tensors["optimizer/0/exp_avg"].zero_()
    assert not same(trained(resume=state), whole)
    state = load_state(tmp_path, warn=pytest.fail)
    state.tensors["interval/counts"].zero_()
    assert trained(resume=state).history != whole.history


def test_a_resumed_run_draws_what_it_would_have_drawn(tmp_path, monkeypatch):
    def make_noisy_model(*arguments):
        model = make_model(*arguments)
        model.bottleneck.register_forward_pre_hook(lambda _, z_e: (z_e[0] + 0.1 * torch.randn_like(z_e[0]),))
        return model

    plain = trained()
    monkeypatch.setattr("vqlib.training.make_model", make_noisy_model)
    whole = trained()
    assert not same(whole, plain)
    assert same(trained(resume=interrupted(tmp_path, "vq", torch.float32, after=9)), whole)


def test_a_run_does_not_depend_on_random_draws_elsewhere(tmp_path):
    first = trained()
    torch.manual_seed(99)
    assert same(trained(progress=lambda *_: torch.rand(3)), first)


@pytest.mark.parametrize("variant", ONE_OF_EACH)
def test_one_batch_can_be_learnt_by_heart(variant):
    experiment = make_experiment(
        network=Network(width=16, num_embeddings=512), steps=150, batch_size=4, learning_rate=3e-3, log_every=10
    )
    split = make_split(4, size=16, seed=3)
    run = make_run(variant, learning_rate=3e-3)
    history = train(experiment, run, split, split, CPU, torch.float32).history
    errors = [row["recon_loss"] for row in history if row["split"] == "train"]
    assert errors[0] > 0.2
    assert errors[-1] < 0.05


def test_every_image_is_seen_at_most_once_an_epoch_in_an_order_of_its_own():
    def epoch(number: int, seed: int = 0) -> list[int]:
        steps = range(5 * number, 5 * number + 5)
        return torch.cat([batch_indices(step, images=22, batch_size=4, seed=seed) for step in steps]).tolist()

    first, second = epoch(0), epoch(1)
    for order in (first, second):
        assert len(order) == len(set(order)) == 20
        assert set(order) <= set(range(22))
    assert first != second
    assert set(first) != set(second)  # not always the same two are left over
    assert epoch(0, seed=1) != first
    assert epoch(0) == first


def test_a_batch_is_a_function_of_seed_and_step_alone():
    there = [batch_indices(step, 22, 4, seed=3) for step in range(12)]
    back = [batch_indices(step, 22, 4, seed=3) for step in reversed(range(12))]
    assert all(torch.equal(a, b) for a, b in zip(there, reversed(back), strict=True))


def test_seeds_differ_with_every_number():
    seeds = {seed_of(*numbers) for numbers in itertools.product((0, 1, 2, 2**31 - 1), range(4), (1, 2))}
    assert len(seeds) == 32
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_images_are_scaled_to_plus_minus_one():
    x = Images(TRAIN, CPU).batch(torch.tensor([3, 1]))
    expected = torch.tensor(TRAIN.images[[3, 1]]).permute(0, 3, 1, 2).double() / 255 * 2 - 1
    torch.testing.assert_close(x.double(), expected, rtol=0, atol=1e-6)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_the_history_has_a_row_for_each_interval_and_epoch():
    rows = trained().history
    assert [(row["step"], row["split"]) for row in rows] == [
        (4, "train"), (5, "validation"), (8, "train"), (10, "validation"), (12, "train"),
        (13, "train"), (13, "validation"),
    ]  # fmt: skip
    assert [row["epoch"] for row in rows] == [1, 1, 2, 2, 3, 3, 3]
    for row in rows:
        assert row.keys() <= set(COLUMNS)
    for row in rows:
        if row["split"] == "train":
            assert 0 < row["recon_loss"] <= row["recon_loss_max"]
            assert 0 < row["grad_norm"] <= row["grad_norm_max"]
            assert row["smallest_code_norm"] > 0
            assert 1 <= row["perplexity"] <= NETWORK.num_embeddings


def test_rows_are_means_over_the_steps_since_the_last():
    each = [row for row in trained(log_every=1).history if row["split"] == "train"]
    for row in trained().history:
        if row["split"] == "train":
            first = {4: 0, 8: 4, 12: 8, 13: 12}[row["step"]]
            steps = each[first : row["step"]]
            for key in ("recon_loss", "commitment_loss", "codebook_loss", "grad_norm"):
                assert row[key] == pytest.approx(sum(step[key] for step in steps) / len(steps))
            assert row["recon_loss_max"] == max(step["recon_loss"] for step in steps)
            assert row["grad_norm_max"] == max(step["grad_norm"] for step in steps)


def test_the_first_row_is_the_gradient_of_the_first_batch():
    row = trained(log_every=1, steps=1).history[0]
    model = make_model(NETWORK, VARIANTS["vq"], seed=0).train()
    losses = model(Images(TRAIN, CPU).batch(batch_indices(0, 22, 4, 0))).losses
    sum(losses.values()).backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert row["recon_loss"] == pytest.approx(losses["recon_loss"].item(), rel=1e-5)


def test_weights_multiply_their_losses():
    heavy = make_run("vq")
    heavy = heavy.model_copy(update={"variant": heavy.variant.model_copy(update={"weights": {"codebook_loss": 0.0}})})
    start = make_model(NETWORK, VARIANTS["vq"], seed=0).bottleneck.codebook
    assert torch.equal(trained(run=heavy).weights["bottleneck.codebook"], start)
    assert not torch.equal(trained().weights["bottleneck.codebook"], start)


def test_a_weight_of_a_loss_that_does_not_exist_is_refused():
    run = make_run("vq")
    run = run.model_copy(update={"variant": run.variant.model_copy(update={"weights": {"comitment_loss": 0.25}})})
    with pytest.raises(ParameterError) as caught:
        trained(run=run)
    message = str(caught.value)
    assert "\n" not in message
    assert "params.yaml: variants.vq.weights: 'comitment_loss'" in message
    assert "did you mean 'commitment_loss'?" in message


def test_the_best_weights_are_those_of_the_best_validation():
    result = trained(steps=20, learning_rate=3e-2)
    rows = [row for row in result.history if row["split"] == "validation"]
    best = min(rows, key=lambda row: row["recon_loss"])
    assert result.best_step == best["step"]
    model = make_model(NETWORK, VARIANTS["vq"])
    model.load_state_dict(result.weights)
    again = validate(model, Images(VALIDATION, CPU), batch_size=3)  # 7 images: the last batch is smaller
    for key, value in again.items():
        assert value == pytest.approx(best[key], rel=1e-4)


def test_numbers_that_are_not_finite_stop_the_run_and_are_reported(tmp_path):
    saved = {}

    def save(state):
        save_state(tmp_path, state)
        saved.update({path.name: path.read_bytes() for path in tmp_path.iterdir()})

    run = make_run("vq", learning_rate=1e30)  # one step of this size, and the next forward pass overflows
    with pytest.raises(DivergedError) as caught:
        trained(run=run, save=save, checkpoint_every=1, log_every=1000)
    message, report = str(caught.value), caught.value.report
    assert "\n" not in message
    assert "vq-0" in message
    assert "not finite since step 2 of 13" in message
    assert "training.learning_rate is 1e+30" in message
    assert report["first_bad_step"] == 2
    assert report["learning_rate"] == 1e30
    assert report["batch"] == batch_indices(1, 22, 4, 0).tolist()
    assert report["codes_used_since_last_row"] >= 1
    assert "smallest_code_norm" in report["statistics_now"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == saved
    assert load_state(tmp_path, warn=pytest.fail).step == 1


def test_divergence_is_dated_even_when_it_is_found_later():
    with pytest.raises(DivergedError, match="since step 2 of"):
        trained(run=make_run("vq", learning_rate=1e30), checkpoint_every=1000, log_every=1000)  # found at step 5


def test_fewer_images_than_a_batch_is_one_line():
    with pytest.raises(DataError, match=r"^training\.batch_size is 23; it may be at most the 22 images of train$"):
        trained(batch_size=23)
