"""From a trained run to files and back: training resumes, files are checked, mistakes are one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support import NETWORK, VARIANTS, make_experiment, make_run, make_split

from vqlib import __main__ as command_line
from vqlib import checkpoints, opened
from vqlib.errors import DataError, DivergedError, ParameterError
from vqlib.evaluation import eval_mode, png
from vqlib.model import filled, make_model, read_sealed, save_model
from vqlib.params import ROOT, Network, Prior, PriorNetwork
from vqlib.priors import coding, drawing, runs
from vqlib.priors.evaluation import bits_of_images, code_bits, describe_bits, quantizer_of
from vqlib.priors.latents import Latents, Layout, NoPriorError, compress_split, decode, find_layout, layout_of
from vqlib.priors.model import HOTTEST, PriorModel, find_class, load_prior, make_prior
from vqlib.priors.naive import naive_sample
from vqlib.priors.training import train_prior
from vqlib.uniform import UniformQuantizer

SMALL = PriorNetwork(layers=2, channels=4, steps=6, learning_rate=1e-2)
PRIOR = Prior(pixelcnn=SMALL, transformer=SMALL, reals=SMALL, batch_size=8, log_every=2, samples=16)
CPU = torch.device("cpu")
CLASSES = ["n01", "n02", "n03"]


def restless(prior: PriorModel) -> PriorModel:
    """Every weight drawn anew: of those of the start, the ones that move the reals' Gaussians are 0."""
    generator = torch.Generator().manual_seed(0)
    for parameter in prior.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return prior.eval().requires_grad_(False)


def split(name: str, images: int = 48, seed: int = 0):
    made = make_split(images, 16, seed, name)
    labels = np.arange(images, dtype=np.int64) % len(CLASSES)
    return type(made)(name, made.images, labels, CLASSES, "d" * 64)


SPLITS = {name: split(name, seed=seed) for seed, name in enumerate(opened.SPLITS)}


def make(root, monkeypatch):
    """An experiment with runs whose weights are those of the start, as if they had been trained."""
    monkeypatch.setattr(opened, "open_split", lambda folder, name, size: SPLITS[name])
    (root / "vqlib").symlink_to(ROOT / "vqlib")
    made = make_experiment(root=root).model_copy(update={"prior": PRIOR})
    for variant in ("projected", "vq", "identity"):
        write_model(made, make_run(variant))
    return made


def write_model(experiment, run, network: Network = NETWORK, seed: int = 0) -> None:
    budget = experiment.training
    made = {"data": "dd", "steps": budget.steps, "batch_size": budget.batch_size, "learning_rate": run.learning_rate}
    description = {"network": network.model_dump(), "variant": run.variant.model_dump(), "provenance": made}
    file = experiment.run_folder(run) / "model.safetensors"
    save_model(file, make_model(network, run.variant, seed).state_dict(), description)


def result_files(experiment, run) -> list[bytes]:
    files = [experiment.results / f"{run.name}.prior.{kind}" for kind in ("json", "csv", "png")]
    return [file.read_bytes() for file in [*files, drawing.prior_file(experiment, run)]]


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    return make(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """With the prior of `projected`; tests leave it as it is."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = make(tmp_path_factory.mktemp("finished"), monkeypatch)
        runs.train_prior_run(made, make_run("projected"))
        yield made


@pytest.fixture
def trained(experiment):
    """The same, to be changed."""
    runs.train_prior_run(experiment, make_run("projected"))
    return experiment


def test_a_run_leaves_a_prior_and_its_numbers(finished):
    run = make_run("projected")
    result = json.loads((finished.results / f"{run.name}.prior.json").read_text())
    positions = 16 / 16**2
    rate = result["rate"]
    assert rate["bpp_label"] == pytest.approx(np.log2(3) / 256, rel=1e-3)
    assert rate["bpp_codes_prior"] == pytest.approx(sum(result["codes"][result["chosen"]]) * positions, rel=1e-3)
    assert rate["bpp_reals_prior"] == pytest.approx(result["reals"]["network"]["level_bits"] * positions, rel=1e-3)
    assert rate["bpp_prior"] == pytest.approx(
        sum(rate[key] for key in ("bpp_label", "bpp_codes_prior", "bpp_reals_prior")), rel=1e-3
    )
    assert rate["bpp_nominal"] == pytest.approx((9 + 8) / 16, rel=1e-3)
    assert 0 <= result["codes"]["order0"][0] <= 9
    assert result["bitstream"]["bpp"] == pytest.approx(result["bitstream"]["bpp_prior"], abs=8 * 8 / 16 / 256)
    assert result["samples"]["classes"] == ["n01", "n02", "n03", "n01", "n02", "n03", "n01", "n02"]
    assert result["rate"]["latent_bits_per_value"] == pytest.approx(rate["bpp_prior"] / 3, rel=1e-3)
    assert Image.open(finished.results / f"{run.name}.prior.png").size == (8 * 16, 6 * 16)
    rows = (finished.results / f"{run.name}.prior.csv").read_text().splitlines()
    assert rows[0] == "part,step,split,bits"
    assert len(rows) == 1 + 3 * 3 * 2  # parts, rows of each, splits
    assert not list((finished.root / "checkpoints").glob("*/*/*.safetensors"))


def test_the_same_again_is_the_same_and_trains_nothing(trained, monkeypatch):
    run = make_run("projected")
    before = result_files(trained, run)
    monkeypatch.setattr(runs, "train_prior", None)  # would fail
    runs.train_prior_run(trained, run)
    assert result_files(trained, run) == before


def test_other_parameters_train_anew(trained):
    other = trained.model_copy(update={"prior": PRIOR.model_copy(update={"batch_size": 9})})
    before = result_files(trained, make_run("projected"))
    runs.train_prior_run(other, make_run("projected"))
    assert result_files(other, make_run("projected"))[3] != before[3]


@pytest.mark.parametrize("killed_at", [("pixelcnn", 2), ("transformer", 4), ("reals", 6)])
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(experiment, finished, killed_at, monkeypatch):
    """Killed after a checkpoint of the first, second or third network; none is begun again."""
    run, save = make_run("projected"), checkpoints.save_state

    def save_and_die(folder, state):
        save(folder, state)
        if (folder.name, state.step) == killed_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_state", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            runs.train_prior_run(experiment, run)
    steps = []
    monkeypatch.setattr(checkpoints, "save_state", lambda folder, state: steps.append((folder.name, state.step)))
    runs.train_prior_run(experiment, run)
    assert result_files(experiment, run) == result_files(finished, run)
    every = [(part, step) for part in ("pixelcnn", "transformer", "reals") for step in (2, 4, 6)]
    assert steps == every[every.index(killed_at) + 1 :]


def test_a_variant_without_codes_is_passed_over_with_the_reason(experiment, capsys):
    run = make_run("identity")
    result = runs.train_prior_run(experiment, run)
    assert "it has no codes" in result["reason"]
    assert capsys.readouterr().err == f"identity-0 has no prior: {result['reason']}\n"
    assert json.loads((experiment.results / "identity-0.prior.json").read_text())["reason"] == result["reason"]
    with pytest.raises(DataError, match=r"^identity-0 has no prior: it has no codes"):
        drawing.sample_images(experiment, run)


def test_a_variant_that_is_not_to_have_one_is_passed_over(experiment):
    chosen = experiment.model_copy(update={"prior": PRIOR.model_copy(update={"variants": ["vq"]})})
    assert "does not name it" in runs.train_prior_run(chosen, make_run("projected"))["reason"]


def test_a_run_may_be_named_instead_of_its_variant():
    assert PRIOR.wants(make_run("vq", 1))
    named = PRIOR.model_copy(update={"variants": ["vq-0", "projected"]})
    wanted = [named.wants(make_run(*run)) for run in (("vq", 0), ("vq", 1), ("projected", 1), ("vq_ema", 0))]
    assert wanted == [True, False, True, False]


def test_which_runs_and_how_many_samples_are_not_in_a_priors_file(trained):
    run = make_run("projected")
    before = drawing.prior_file(trained, run).read_bytes()
    drawing.prior_file(trained, run).unlink()
    other = PRIOR.model_copy(update={"variants": ["projected-0"], "samples": 20})
    runs.train_prior_run(trained.model_copy(update={"prior": other}), run)
    assert drawing.prior_file(trained, run).read_bytes() == before


def test_a_prior_trained_with_other_threads_is_kept_and_said(trained, monkeypatch, capsys):
    run = make_run("projected")
    before = drawing.prior_file(trained, run).read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    result = runs.train_prior_run(trained, run)
    assert (
        "projected-0: its prior was trained with 1 thread and is kept; with 7 threads last" in capsys.readouterr().err
    )
    assert drawing.prior_file(trained, run).read_bytes() == before
    assert result["provenance"]["threads"] == 1


def test_a_training_that_goes_on_with_other_threads_says_so(experiment, monkeypatch, capsys):
    run, save = make_run("vq"), checkpoints.save_state

    def save_and_die(folder, state):
        save(folder, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_state", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            runs.train_prior_run(experiment, run)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    runs.train_prior_run(experiment, run)
    told = capsys.readouterr().err
    assert "vq-0: pixelcnn is going on after step 2" in told
    assert "its checkpoint was written by 1 thread; with 7 threads last digits may differ" in told


def test_what_is_measured_belongs_to_parameters_and_weights(trained):
    run = make_run("projected")

    def measured(**changes) -> bool:
        return runs.is_measured(trained.model_copy(update={"prior": PRIOR.model_copy(update=changes)}), run)

    assert measured() and measured(variants=["projected"])
    assert not measured(batch_size=9)
    assert not measured(samples=17)
    assert not measured(reals=SMALL.model_copy(update={"steps": 7}))
    assert not measured(variants=["vq"])
    assert not runs.is_measured(trained, make_run("vq"))
    write_model(trained, run, seed=1)
    assert not measured()


def test_codes_alone_have_no_gains(experiment):
    result = runs.train_prior_run(experiment, make_run("vq"))
    assert result["reals"] is None
    assert result["rate"]["bpp_nominal"] == 9 / 16
    assert set(result["parameters"]) == {"pixelcnn", "transformer"}


def test_samples_follow_the_seed_and_the_class(finished):
    run = make_run("projected")
    one = drawing.sample_images(finished, run, "n02", 0.8, seed=3, count=5)
    assert one.shape == (5, 3, 16, 16)
    assert torch.equal(one, drawing.sample_images(finished, run, "n02", 0.8, seed=3, count=5))
    assert not torch.equal(one, drawing.sample_images(finished, run, "n02", 0.8, seed=4, count=5))
    assert not torch.equal(one, drawing.sample_images(finished, run, "n01", 0.8, seed=3, count=5))


def test_without_a_class_all_come_in_turn_and_the_first_few_are_spread():
    assert sorted(drawing.in_turn(200, 200).tolist()) == list(range(200))
    few = drawing.in_turn(200, 8)
    assert few.sort().values.diff().min() > 10
    assert torch.equal(drawing.in_turn(200, 500)[:8], few)
    assert drawing.in_turn(1, 3).tolist() == [0, 0, 0]
    counts = torch.bincount(drawing.in_turn(7, 30))
    assert counts.max() - counts.min() <= 1


def test_one_of_many_classes_is_looked_for_by_its_name():
    classes = [f"n{number:08d}" for number in range(1000, 1100)]
    assert find_class("n00001033", classes) == 33
    with pytest.raises(ParameterError) as caught:
        find_class("n0001033", classes)
    assert "did you mean 'n00001033'? there are 100, n00001000 to n00001099" in str(caught.value)


def test_the_command_line_writes_samples_and_the_grid_of_the_report(finished, tmp_path, monkeypatch, capsys):
    run = make_run("projected")
    monkeypatch.setattr(
        command_line, "load_experiment", lambda name: finished.model_copy(update={"runs": {run.name: run}})
    )
    target = tmp_path / "drawn.png"
    command = ["sample", "smoke", run.name, "--to", str(target)]
    assert command_line.main([*command, "--class", "n02", "--seed", "3", "--count", "5", "--temperature", "0.8"]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    expected = drawing.sample_images(finished, run, "n02", 0.8, 3, 5)
    assert target.read_bytes() == png(expected, 3)
    assert command_line.main([*command, "--as-in-report"]) == 0
    shown = np.asarray(Image.open(finished.results / f"{run.name}.prior.png"))
    assert np.array_equal(np.asarray(Image.open(target)), shown[: 4 * 16])
    assert command_line.main([*command, "--class", "n2"]) == 2
    assert capsys.readouterr().err.startswith("error: class 'n2' is not one of the data; did you mean")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--temperature", "hot", f"temperature is hot; it must be a number from 1e-06 to {HOTTEST:g}"),
        ("--temperature", "1e-320", "temperature is 1e-320; it must be a number from 1e-06 to 10"),
        ("--temperature", "nan", "temperature is nan; it must be a number from 1e-06 to 10"),
        ("--seed", "-5", "seed is -5; it must be a whole number from 0 to 2,147,483,647"),
        ("--seed", "9" * 23, f"seed is {'9' * 23}; it must be a whole number from 0 to 2,147,483,647"),
        ("--count", "0", f"count is 0; it must be a whole number from 1 to {drawing.MOST:,}"),
        ("--count", "2.5", "count is 2.5; it must be a whole number from 1 to 1,024"),
        ("--to", "images.jpg", "--to is images.jpg; it must be the name of a file that ends in .png"),
    ],
)
def test_options_out_of_range_are_one_line(option, value, said, capsys):
    assert command_line.main(["sample", "sample", "projected-0", f"{option}={value}"]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


MISTAKES = {
    "temperature 0": ({"temperature": 0.0}, ParameterError, "temperature is 0; it must be above 0 and at most 10"),
    "temperature nan": ({"temperature": float("nan")}, ParameterError, "temperature is nan; it must be above 0"),
    "class": ({"class_name": "n04"}, ParameterError, "class 'n04' is not one of the data; did you mean"),
    "count": ({"count": 0}, ParameterError, "count is 0; it must be from 1 to 1,024"),
}


@pytest.mark.parametrize(("how", "kind", "said"), MISTAKES.values(), ids=MISTAKES)
def test_bad_requests_are_one_line(finished, how, kind, said):
    with pytest.raises(kind) as caught:
        drawing.sample_images(finished, make_run("projected"), **how)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_prior_belongs_to_one_model(trained, tmp_path):
    run, vq = make_run("projected"), make_run("vq")
    file = drawing.prior_file(trained, run)
    with pytest.raises(DataError, match=r"no such prior; the stage prior makes it: .*python -m vqlib prior"):
        drawing.sample_images(trained, vq)
    drawing.prior_file(trained, vq).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match="a prior of the variant 'projected', not of 'vq'"):
        drawing.sample_images(trained, vq)
    write_model(trained, run, seed=1)
    with pytest.raises(DataError, match="the prior of other weights than those of projected-0 now"):
        drawing.sample_images(trained, run)
    trained = trained.model_copy(update={"network": NETWORK.model_copy(update={"num_embeddings": 256})})
    write_model(trained, run, trained.network)
    with pytest.raises(DataError, match="a prior of 512 codes, but the model has 256"):
        drawing.sample_images(trained, run)


@pytest.mark.parametrize("at", [40, -40])
def test_a_damaged_prior_is_found(trained, at):
    file = drawing.prior_file(trained, make_run("projected"))
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="not a prior of this project, or damaged"):
        drawing.sample_images(trained, make_run("projected"))


def test_training_lowers_the_bits_towards_the_entropy_of_a_known_source():
    """Codes that repeat their left neighbour with probability 0.9: the model finds it, order 0 cannot."""
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 4, (400, 4, 4))
    for column in range(1, 4):
        same = draw.random((400, 4)) < 0.9
        codes[:, :, column][same] = codes[:, :, column - 1][same]
    latents = Latents(torch.from_numpy(codes)[..., None], None, torch.zeros(400, dtype=torch.int64))
    budget = PriorNetwork(layers=2, channels=16, steps=100, learning_rate=2e-2)
    params = Prior(pixelcnn=budget, transformer=budget, reals=budget)
    prior = make_prior(Layout((4,), (4, 4), 0, False), 1, params, 0)
    stays = 0.9 + 0.1 / 4
    later = -(stays * np.log2(stays) + (1 - stays) * np.log2((1 - stays) / 3))
    entropy = (2 + 3 * later) / 4  # of a position of a row
    for part in prior.codes.values():
        trained = train_prior(part, latents.at(slice(0, 300)), latents.at(slice(300, 400)), budget, 32, 50, 0, CPU,
                              torch.float32)  # fmt: skip
        part.load_state_dict(trained.weights)
        assert entropy - 0.1 < code_bits(part, latents.at(slice(300, 400)), CPU)[0] < entropy + 0.15


def test_a_likelihood_that_is_not_finite_stops_the_training():
    latents = Latents(torch.zeros(8, 2, 2, 1, dtype=torch.int64), torch.full((8, 1, 2, 2), torch.inf), torch.zeros(8))
    prior = make_prior(Layout((2,), (2, 2), 1, False), 1, PRIOR, 0)
    with pytest.raises(DivergedError, match=r"not finite at step 2 of 6; its learning_rate is 0.01"):
        train_prior(prior.reals, latents, latents, SMALL, 4, 2, 0, CPU, torch.float32)


@pytest.mark.parametrize("variant", ["vq", "projected", "projected_rows"])
def test_a_bitstream_gives_back_what_was_encoded_at_the_length_that_was_told(variant):
    """With weights drawn anew, so that all they say of reals matters too, and latents that do not fit them at all."""
    model = make_model(NETWORK, make_run(variant).variant)
    with eval_mode(model):
        layout = layout_of(model, SPLITS["test"], CPU)
        latents = compress_split(model, SPLITS["test"], layout, CPU).at(slice(0, 12))
    prior = restless(make_prior(layout, len(CLASSES), PRIOR, 0))
    quantizer = None
    if latents.reals is not None:
        prior.reals.base.fit(latents)
        quantizer = UniformQuantizer(latents.reals, bits=5)
    words = coding.encode(prior, latents, quantizer)
    got = coding.decode(prior, words, len(latents), quantizer)
    assert torch.equal(got.symbols, latents.symbols)
    assert torch.equal(got.labels, latents.labels)
    assert quantizer is None or torch.equal(quantizer.indices(got.reals), quantizer.indices(latents.reals))
    assert quantizer is None or torch.allclose(got.reals, quantizer(latents.reals), rtol=1e-6)
    told = float(bits_of_images(prior, latents, quantizer, CPU).sum())
    assert told - 8 < 8 * words.nbytes < told * 1.002 + 64


def test_a_position_without_reals_costs_nothing_in_a_bitstream():
    layout = Layout((4,), (2, 3), 2, False)
    symbols = torch.randint(4, (6, 2, 3, 1), generator=torch.Generator().manual_seed(0))
    reals = torch.randn(6, 2, 2, 3, generator=torch.Generator().manual_seed(1))
    reals = torch.where((symbols[..., 0] < 2)[:, None], torch.nan, reals)
    latents = Latents(symbols, reals, torch.arange(6) % 3)
    prior = restless(make_prior(layout, 3, PRIOR, 0))
    prior.reals.base.fit(latents)
    assert prior.reals.base.stored.tolist() == [False, False, True, True]
    quantizer = UniformQuantizer(reals, bits=8)
    words = coding.encode(prior, latents, quantizer)
    got = coding.decode(prior, words, 6, quantizer)
    assert torch.equal(torch.isnan(got.reals), torch.isnan(reals))
    assert torch.allclose(got.reals, quantizer(reals), rtol=1e-6, equal_nan=True)
    told = float(bits_of_images(prior, latents, quantizer, CPU).sum())
    assert told - 8 < 8 * words.nbytes < told * 1.01 + 64


DECODE = """
import sys
import torch
from vqlib.priors import coding
torch.set_num_threads(1)
prior, words, count, quantizer = torch.load(sys.argv[1], weights_only=False)
torch.save(tuple(coding.decode(prior, words, count, quantizer)), sys.argv[2])
"""


def test_another_process_decodes_a_bitstream(tmp_path):
    layout = Layout((5, 3), (2, 3), 2, False)
    draw = torch.Generator().manual_seed(0)
    symbols = torch.stack([torch.randint(size, (6, 2, 3), generator=draw) for size in layout.alphabets], dim=-1)
    latents = Latents(symbols, torch.randn(6, 2, 2, 3, generator=draw), torch.arange(6) % 3)
    prior = restless(make_prior(layout, 3, PRIOR, 0))
    prior.reals.base.fit(latents)
    quantizer = UniformQuantizer(latents.reals, 6, axis=1)
    files = [tmp_path / "sent", tmp_path / "got"]
    torch.save((prior, coding.encode(prior, latents, quantizer), 6, quantizer), files[0])
    subprocess.run([sys.executable, "-c", DECODE, *files], cwd=ROOT, check=True, timeout=60)
    got = Latents(*torch.load(files[1]))
    assert torch.equal(got.symbols, symbols) and torch.equal(got.labels, latents.labels)
    assert torch.equal(quantizer.indices(got.reals), quantizer.indices(latents.reals))


def test_a_constant_real_has_a_finite_likelihood_after_a_file(tmp_path):
    """Of three channels, one is always 0, one always 0.7: float16 has neither 1e-8 nor 0.7."""
    layout, draw = Layout((4,), (2, 3), 3, False), torch.Generator().manual_seed(0)
    reals = torch.randn(20, 3, 2, 3, generator=draw)
    reals[:, 1], reals[:, 2] = 0.0, 0.7
    latents = Latents(torch.randint(4, (20, 2, 3, 1), generator=draw), reals, torch.zeros(20, dtype=torch.int64))
    prior = make_prior(layout, 1, PRIOR, 0)
    prior.reals.base.fit(latents)
    save_model(tmp_path / "prior", prior.state_dict(), {})
    again = filled(lambda: make_prior(layout, 1, PRIOR, 1), read_sealed(tmp_path / "prior")[0])
    assert torch.equal(again.reals.base.std, prior.reals.base.std)
    logs = again.reals.log_prob(reals, latents.symbols, None)
    assert torch.isfinite(logs).all()
    assert (logs[:, 1:] > 5).all()
    assert (again.reals.log_prob(reals + 5e-6, latents.symbols, None)[:, 1:] > 5).all()  # a last digit costs little
    quantizer = quantizer_of(latents)
    told = describe_bits(again, latents, latents, quantizer, 64, CPU)["reals"]
    assert all(np.isfinite(value) for part in told.values() if isinstance(part, dict) for value in part.values())


RARE = Latents(  # of four codes the first two are frequent, and discrete
    torch.tensor([0] * 9 + [1] * 8 + [2]).view(1, 3, 6, 1),
    torch.tensor([torch.nan] * 17 + [0.5]).view(1, 1, 3, 6), torch.zeros(1, dtype=torch.int64),
)  # fmt: skip


def test_an_unseen_code_does_as_the_rarest_that_was_seen():
    base = make_prior(Layout((4,), (3, 6), 1, False), 1, PRIOR, 0).reals.base
    base.fit(RARE)
    assert base.stored.tolist() == [False, False, True, True]
    base.fit(Latents(RARE.symbols, torch.full((1, 1, 3, 6), torch.nan), RARE.labels))
    assert base.stored.tolist() == [False] * 4


@pytest.mark.parametrize("stored", [False, True])
def test_latents_whose_codes_do_not_tell_what_is_stored_have_no_bitstream(stored):
    prior = restless(make_prior(Layout((4,), (3, 6), 1, False), 1, PRIOR, 0))
    prior.reals.base.fit(RARE)
    other = Latents(*(part.clone() for part in RARE))
    other.symbols[0, 0, 0, 0] = 3  # unseen
    other.reals[0, 0, 0, 0] = 0.25 if stored else torch.nan
    quantizer = UniformQuantizer(RARE.reals, 4)
    if stored:
        words = coding.encode(prior, other, quantizer)
        assert torch.equal(coding.decode(prior, words, 1, quantizer).symbols, other.symbols)
    else:
        with pytest.raises(coding.NoStreamError, match=r"^at 1 of 18 places the prior does not know from the codes"):
            coding.encode(prior, other, quantizer)


def test_a_frequency_variant_has_a_prior_and_says_why_it_has_no_bitstream(experiment):
    """Weights of the start, 48 images: some codes of test images are unseen, on either side of the frequent ones."""
    run = make_run("frequency_412")
    write_model(experiment, run)
    result = runs.train_prior_run(experiment, run)
    assert result["reason"] is None
    assert result["reals"]["per_image"] < 8 * 16  # of D numbers at every position
    assert np.isfinite(result["rate"]["bpp_prior"])
    assert result["bitstream"] is None
    assert "places the prior does not know from the codes" in result["bitstream_missing"]
    assert torch.isfinite(drawing.sample_images(experiment, run, count=4)).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_latents_of_every_variant_come_back_as_the_decoder_saw_them(variant):
    model = make_model(NETWORK, make_run(variant).variant)
    with eval_mode(model), torch.no_grad():
        if not model.bottleneck.alphabets:
            with pytest.raises(NoPriorError, match="no codes"):
                layout_of(model, SPLITS["test"], CPU)
            return
        layout = layout_of(model, SPLITS["test"], CPU)
        latents = compress_split(model, SPLITS["test"], layout, CPU)
        x = torch.from_numpy(SPLITS["test"].images.copy()).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        expected = model(x).reconstruction
        assert torch.equal(decode(model, latents.symbols, latents.reals, layout), expected)
        assert latents.symbols.shape[1:] == (4, 4, len(model.bottleneck.alphabets))
        if latents.reals is not None:
            assert latents.reals.shape[1:] == (layout.reals, *layout.grid)
            assert layout.by_row == variant.startswith("projected_rows")


def test_a_second_symbol_may_tell_what_is_stored():
    layout = Layout((3, 2), (1, 4), 1, False)
    symbols = torch.tensor([[[[0, 0], [0, 1], [2, 1], [1, 0]]]])
    reals = torch.tensor([[[[torch.nan, 1.0, 2.0, torch.nan]]]])
    base = make_prior(layout, 1, PRIOR, 0).reals.base
    base.fit(Latents(symbols, reals, torch.zeros(1)))
    assert base.stored[base.all_symbols(symbols)].tolist() == [[[False, True, True, False]]]


def test_layouts_that_have_a_prior_and_the_reasons_of_those_that_have_none():
    codes = torch.zeros(2, 3, 4, dtype=torch.int64)
    assert find_layout(codes, None, (5,)) == Layout((5,), (3, 4), 0, False)
    assert find_layout(codes, torch.zeros(2, 3, 4), (5,)) == Layout((5,), (3, 4), 1, False)
    assert find_layout(codes, torch.zeros(2, 7, 3, 4), (5,)) == Layout((5,), (3, 4), 7, False)
    assert find_layout(codes, torch.zeros(2, 7, 3), (5,)) == Layout((5,), (3, 4), 7, True)
    assert find_layout(codes[..., None].expand(-1, -1, -1, 2), None, (5, 6)).alphabets == (5, 6)
    with pytest.raises(NoPriorError, match="no codes"):
        find_layout(None, torch.zeros(2, 7, 3, 4), ())
    with pytest.raises(NoPriorError, match="5 x 9 of an image, belong neither to positions nor to rows"):
        find_layout(codes, torch.zeros(2, 5, 9), (5,))


def test_numbers_that_no_training_image_stores_cost_nothing():
    """As of a frequency variant whose codes in use are all frequent."""
    layout = Layout((3,), (2, 2), 2, False)
    symbols = torch.zeros(4, 2, 2, 1, dtype=torch.int64)
    latents = Latents(symbols, torch.full((4, 2, 2, 2), torch.nan), torch.zeros(4, dtype=torch.int64))
    prior = make_prior(layout, 1, PRIOR, 0).eval()
    prior.reals.base.fit(latents)
    quantizer = quantizer_of(latents)
    described = describe_bits(prior, latents, latents, quantizer, 64, CPU)
    assert described["reals"] is None
    assert described["rate"]["bpp_prior"] == described["rate"]["bpp_codes_prior"]
    assert naive_sample(latents, 3, torch.Generator().manual_seed(0))[1].isnan().all()
    words = coding.encode(prior, latents, quantizer)
    assert torch.equal(coding.decode(prior, words, 4, quantizer).symbols, symbols)


def test_a_mask_that_does_not_follow_from_the_codes_has_no_prior():
    layout = Layout((2,), (1, 2), 1, False)
    reals = torch.tensor([[[[1.0, torch.nan]]]])
    prior = make_prior(layout, 1, PRIOR, 0)
    with pytest.raises(NoPriorError, match="does not follow from its symbols"):
        prior.reals.base.fit(Latents(torch.zeros(1, 1, 2, 1, dtype=torch.int64), reals, torch.zeros(1)))


def test_weights_of_the_start_follow_the_seed(finished):
    run = make_run("projected")
    at_hand = opened.open_run(finished, run)
    loaded, _ = load_prior(drawing.prior_file(finished, run), run, at_hand.model, at_hand.weights)
    first, same, other = (make_prior(loaded.layout, 3, PRIOR, seed).state_dict() for seed in (0, 0, 1))
    key = "codes.transformer.network.first"
    assert torch.equal(first[key], same[key])
    assert not torch.equal(first[key], other[key])
