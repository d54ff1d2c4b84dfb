"""The benchmarks at toy sizes: they measure what they say. No test here looks at how long anything took."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from support import VARIANTS
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import growth, measure, naive, plots, search, sections, step
from benchmarks.__main__ import main
from benchmarks.page import page as page_of
from benchmarks.page import paper_steps, write_page
from benchmarks.text import effect
from vqlib.errors import DataError
from vqlib.model import make_model
from vqlib.params import ROOT, Network, load_experiment
from vqlib.priors import make_network
from vqlib.priors.codes import CodePrior
from vqlib.priors.latents import Layout
from vqlib.priors.reals import RealPrior
from vqlib.training import train

CPU = torch.device("cpu")
MEASURED = ("bottlenecks", "search", "growth", "prior_sampling")
TINY = measure.setting(width=4, size=8, batch=4, codes=8)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with results and page of every part that needs no other process; memory is measured in this one."""
    folder = tmp_path_factory.mktemp("benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "fresh", lambda work, *arguments: work(*arguments))
        assert main([*MEASURED, "--small", "--device", "cpu", "--into", str(folder)]) == 0
    return folder


def results_of(folder) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in (folder / "results/benchmarks").glob("*.json")}


def test_the_committed_page_says_what_its_results_say(tmp_path):
    """Drawn again, to the byte, as every other report (tests/test_readme.py)."""
    committed, drawn = ROOT / "reports/benchmarks", write_page(ROOT / "results/benchmarks", tmp_path)
    assert drawn.read_text() == (committed / "README.md").read_text(), "draw it again: python -m benchmarks --page"
    names = [{path.name for path in folder.glob("figures/*.png")} for folder in (tmp_path, committed)]
    assert names[0] == names[1]


def test_every_result_names_machine_and_rounds(measured):
    found = results_of(measured)
    assert set(found) == {f"{part}_cpu.json" for part in MEASURED}
    page = (measured / "reports/benchmarks/README.md").read_text()
    for result in found.values():
        command = f"python -m benchmarks {result['part']} --device cpu --threads {torch.get_num_threads()} --small"
        assert result["command"] == command and f"<sub>`{command}`" in page
        assert result["hardware"] and result["torch"] == torch.__version__
    times = found["bottlenecks_cpu.json"]["steps"][0]
    assert {len(seconds) for seconds in times["seconds"].values()} == {times["rounds"]}
    assert all(second > 0 for seconds in times["seconds"].values() for second in seconds)


def test_page_is_drawn_from_results_alone(measured):
    page = measured / "reports/benchmarks/README.md"
    before = page.read_text()
    ways = {row["way"] for row in results_of(measured)["search_cpu.json"]["rows"]}
    assert len(ways) >= 2 and all(way in before for way in ways)
    assert "No GPU was at hand" in before
    for picture in ("bottlenecks_cpu", "search_cpu", "growth_cpu"):
        assert f"figures/{picture}.png" in before
        assert (page.parent / f"figures/{picture}.pdf").stat().st_size > 1000
    found = {tuple(name.removesuffix(".json").rsplit("_", 1)): result for name, result in results_of(measured).items()}
    assert page_of(found)[0] == before
    found["growth", "cpu"]["rows"][0]["seconds"] = [1000.0]
    changed = page_of(found)[0]
    assert "5e+05 ms" in changed and "5e+05 ms" not in before  # an image of that batch of two


def test_an_unknown_part_is_one_line(tmp_path, capsys):
    assert main(["stepp", "--into", str(tmp_path), "--device", "cpu"]) == 2
    assert "'stepp' is not known; it may be one of" in capsys.readouterr().err


@pytest.mark.parametrize("threads", [-3, 0, 1025])
def test_threads_are_a_number_of_them(tmp_path, capsys, threads):
    assert main(["growth", "--small", "--device", "cpu", "--threads", str(threads), "--into", str(tmp_path)]) == 2
    assert f"error: --threads is {threads}; it must be a whole number from 1 to 1,024" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("foo.json", "{}", "no part of the benchmarks is named so; move it away, or name it <part>_<device>, "),
        ("foo_cpu.json", "{}", "no part of the benchmarks is named so"),
        ("search_tpu.json", "{}", "no part of the benchmarks is named so"),
        (
            "search_cpu.json",
            '{"part": "sea',
            "is damaged, it is not JSON; measure it again: python -m benchmarks search",
        ),
        ("search_cpu.json", b"\xff", "is damaged"),
        ("search_cpu.json", "[]", "holds no result of search on cpu; measure it again"),
        ("search_cuda.json", '{"part": "search", "device": "cpu"}', "holds no result of search on cuda"),
        (None, "", "has no results to draw; measure first: python -m benchmarks"),
    ],
)
def test_results_that_cannot_be_drawn_are_one_line_and_no_page(tmp_path, capsys, name, content, said):
    folder = tmp_path / "results" / "benchmarks"
    if name:
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["--page", "--into", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {folder / (name or '')}") and said in told and told.count("\n") == 1
    assert not (tmp_path / "reports").exists()


def test_what_cannot_be_written_is_one_line(measured, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["search", "--small", "--device", "cpu", "--into", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'file/results/benchmarks'}: Not a directory; make it readable and writable and start "
        "again: what was saved is kept\n"
    )
    shutil.copytree(measured / "results", tmp_path / "results")
    (tmp_path / "reports").touch()
    assert main(["--page", "--into", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path / 'reports'}") and told.count("\n") == 1


def test_a_step_of_several_sections_is_compared(measured):
    """The page says how far apart the same step is from one section to another."""
    paper = {**measure.setting(), "seconds": {"ours": [2.0], "vq": [3.0]}}
    found = {
        ("step", "cpu"): {"speed": [paper, {**paper, "size": 128, "seconds": {"ours": [9.0]}}]},
        ("bottlenecks", "cpu"): {"steps": [{**paper, "width": 64, "seconds": {"vq": [9.0]}}, paper]},
        ("growth", "cpu"): {"rows": [{**paper, "seconds": [1.0, 2.5, 4.0]}]},
    }
    assert paper_steps(found, "cpu") == {"1": 2.0, "2a": 3.0, "4": 2.5} and paper_steps(found, "cuda") == {}
    assert "is measured in several sections" not in (measured / "reports/benchmarks/README.md").read_text()


def test_what_drowns_in_noise_has_no_percentage_of_its_own():
    assert effect([1.10, 1.11, 1.12]) == "+11.0% (+10.5% to +11.5%)"
    assert effect([0.8, 1.02, 1.2]) == "in the noise: -9.0% to +11.0%"


def test_a_dear_bottleneck_leaves_the_others_and_the_goal_readable(measured):
    result = results_of(measured)["bottlenecks_cpu.json"]
    vq, alone = result["steps"][0]["seconds"]["vq"], result["alone"][0]["seconds"]
    vq[:] = [1.0] * len(vq)
    for name, seconds in alone.items():
        seconds[:] = [{"identity": 0.004, "vq": 0.04}.get(name, 1.2)] * len(seconds)
    axis = plots.bottlenecks(result).axes[0]
    shown = sorted({round(float(line.get_xdata()[0]), 6) for line in axis.lines})
    assert axis.get_xscale() == "log" and shown == [0.4, 4, 7, 120]


def test_variants_that_were_not_measured_are_named(monkeypatch):
    result = json.loads((ROOT / "results/benchmarks/bottlenecks_cpu.json").read_text())
    measured = list(result["steps"][0]["seconds"])
    monkeypatch.setattr(sections, "load_variants", lambda: dict.fromkeys([*measured, "newer", "newest"]), raising=False)
    text = sections.bottlenecks(result)[0]
    assert f"Whole training steps of {len(measured)} variants, in turns" in text and "every variant" not in text
    assert "variants that params.yaml has now, not measured: `newer`, `newest`.\n" in text
    monkeypatch.setattr(sections, "load_variants", lambda: dict.fromkeys(measured))
    assert "not measured" not in sections.bottlenecks(result)[0]


@pytest.mark.parametrize(("current", "said"), [(True, "it is 2.50 s: met"), (False, "it is 2.50 s: **not judged**")])
def test_only_a_dvc_repro_with_nothing_to_do_is_judged(current, said):
    no_op = {"smallest": [1.5], "default": [2.5], "default_is_current": current, "default_runs": 6}
    text = sections.around({"starts": {"x": [1.0]}, "no_op": no_op})[0]
    assert "1.50 s for the smallest experiment, with one run; goal under 3 s: met" in text
    assert f"For the default experiment, `sample` with 6 runs, {said}" in text


def test_the_search_budget_is_drawn_and_little_memory_as_a_megabyte(measured):
    result = results_of(measured)["search_cpu.json"]
    for row in result["rows"]:
        row["memory"] = 0 if row["way"] == "ours" else 3e9
    memory = plots.search(result).axes[2]
    assert {round(float(line.get_ydata()[0]), 1) for line in memory.lines} == {1.0, 3000.0, 4.2}
    assert len([label for label in memory.get_yticklabels() if label.get_text()]) >= 3
    assert "in blocks of 4 MB" in sections.search(result)[0]


def status_without_torch(package: str, arguments: list[str]) -> int:
    """The exit status of ``python -m package`` with arguments; asserts that torch was not imported for it."""
    code = f"""
import sys
from {package}.__main__ import main
try:
    status = main({arguments!r})
except SystemExit as ended:
    status = ended.code
print(status, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    status, imported = done.stdout.split()[-2:]
    assert imported == "False"
    return int(status)


@pytest.mark.parametrize("arguments", [["--help"], ["stepp"], ["step", "--experiment", "sampel"]])
def test_help_and_mistakes_do_not_wait_for_torch(arguments):
    assert status_without_torch("benchmarks", arguments) == (0 if "--help" in arguments else 2)


def test_trainings_that_take_turns_are_the_real_loop():
    """What is timed has the weights that ``train`` gives, although another training ran in between."""
    split, variant = measure.made_split(16, 8), VARIANTS["vq"]
    model, other = (make_model(Network(width=4, num_embeddings=8), variant, seed) for seed in (0, 1))
    held = measure.TakingTurns(TINY, variant, split, CPU, model=model)
    between = measure.TakingTurns(TINY, variant, split, CPU, model=other)
    for _ in range(3):
        assert held.interval() > 0
        between.interval()
    seen = {key: value.clone() for key, value in model.state_dict().items()}
    for training in (held, between):
        training.close()
        assert not training.thread.is_alive()

    alone = make_model(Network(width=4, num_embeddings=8), variant, 0)
    experiment = measure.experiment_of(TINY, 3, 1, CPU)
    train(experiment, measure.run_of(variant, experiment), split, measure.made_split(2, 8), CPU, held.precision,
          model=alone)  # fmt: skip
    assert all(torch.equal(value, seen[key]) for key, value in alone.state_dict().items())


def test_the_error_of_a_training_in_its_thread_arrives():
    threads = threading.active_count()
    training = measure.TakingTurns(TINY, VARIANTS["vq"], measure.made_split(2, 8), CPU)  # fewer images than a batch
    with pytest.raises(DataError, match="batch_size is 4"):
        training.interval()
    training.thread.join(5)
    assert threading.active_count() == threads


def test_rivals_take_turns_and_warm_up_does_not_count():
    calls, seconds = [], iter(range(100))

    def work(name):
        calls.append(name)
        return next(seconds)

    taken = measure.in_turn({"a": lambda: work("a"), "b": lambda: work("b")}, rounds=3, warm_up=1)
    assert "".join(calls) == "abbaabba"
    assert taken == {"a": [3, 4, 7], "b": [2, 5, 6]}


def state() -> tuple[int, int, bool]:
    return os.getpid(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()


def test_a_fresh_process_is_another_that_computes_as_this_one():
    process, *computes = measure.fresh(state)
    assert process != os.getpid() and computes == [torch.get_num_threads(), True]


def test_memory_is_measured_in_a_fresh_process(monkeypatch):
    asked = []
    monkeypatch.setattr(measure, "fresh", lambda work, *arguments: asked.append(work) or 5)
    assert growth.point(TINY, CPU, 1, 1)["memory"] == 5
    assert {row["memory"] for row in search.compared(2, 4, 1, 4, CPU, 1)} == {5}
    assert set(asked) == {measure.memory_of_training, search.memory_of}


@pytest.mark.skipif(not measure.CLEAR.exists(), reason="needs Linux's account of a process")
def test_memory_of_each_way_grows_with_what_it_holds():
    larger = measure.setting(width=8, size=64, batch=64, codes=16)  # images of 3 MB, activations of several times that
    assert measure.memory_of_training(larger, CPU) > 5e6
    distances = 4 * 1024 * 2048
    assert search.memory_of(search.CDIST, (32, 2048, 1, 4), CPU) > 0.9 * distances


@pytest.mark.skipif(not measure.CLEAR.exists(), reason="needs Linux's account of a process")
def test_peak_memory_sees_what_is_freed_again():
    def work():
        np.ones(40_000_000, np.uint8)
        return np.ones(1_000_000, np.uint8)

    result, peak = measure.memory_of(work, CPU)
    assert len(result) == 1_000_000
    assert 39e6 < peak < 48e6


@pytest.mark.skipif(not measure.CLEAR.exists(), reason="needs Linux's account of a process")
def test_memory_that_was_freed_before_counts_again():
    kept = []

    def work():
        held = [torch.ones(25_000) for _ in range(400)]  # 40 MB in pieces from the heap
        kept.append(held[-1])  # at its end, so that what lies before it stays with the process

    assert [measure.memory_of(work, CPU)[1] > 36e6 for _ in range(2)] == [True, True]


def test_operations_of_a_step_are_those_of_its_convolutions():
    """Counted by hand for width 4, K 8 at 8 px: forward, and twice that backward but for the first layer's input."""
    width, codes = 4, 8
    first = 4 * 4 * 16 * 3 * width  # positions x kernel x channels in x out
    strided, three, one = 4 * 16 * width * width, 4 * 9 * width * width, 4 * width * width
    last = 4 * 4 * 16 * width * 3
    image = 2 * (3 * (2 * strided + 4 * (three + one) + last) + 2 * first + 4 * codes * width)
    assert measure.step_operations(TINY, VARIANTS["vq"]) == 4 * image


def test_the_straightforward_network_is_the_same_network():
    plain = naive.PlainVQVAE(4, 8)
    ours = make_model(Network(width=4, num_embeddings=8), VARIANTS["vq"])
    ours.encoder.load_state_dict(plain.encoder.state_dict())
    ours.decoder.load_state_dict(plain.decoder.state_dict())
    ours.bottleneck.codebook.data.copy_(plain.codebook.weight.data)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    output = ours(x)
    reconstruction, z_e, z_q = plain(x)
    torch.testing.assert_close(output.reconstruction, reconstruction)
    torch.testing.assert_close(output.losses["commitment_loss"], torch.nn.functional.mse_loss(z_e, z_q))


def test_the_straightforward_loop_learns_from_files(tmp_path):
    files = naive.write_files(measure.made_split(8, 8), tmp_path / "images")
    assert len(naive.ImageFiles(files)) == 8 and naive.ImageFiles(files)[0].shape == (3, 8, 8)
    training = naive.files_and_loader(TINY, files, CPU)
    assert next(training) > 0 and next(training) > 0 and next(training) > 0  # a second epoch, too
    training.close()
    assert torch.are_deterministic_algorithms_enabled()  # what the loop switched off is on again


def test_both_ways_of_masking_agree():
    draw = torch.Generator().manual_seed(0)
    indices = torch.randint(0, 8, (2, 3, 4), generator=draw)
    z_e, z_q = torch.randn(2, 2, 5, 3, 4, generator=draw)
    kept = naive.kept_codes(indices, 8, 3)
    assert int(kept.sum()) == 3
    slow = naive.mask_by_positions(indices, z_q, z_e, set(kept.nonzero().flatten().tolist()))
    assert torch.equal(slow, naive.mask_at_once(indices, z_q, z_e, kept))
    assert not torch.equal(slow, z_q) and not torch.equal(slow, z_e)


def test_all_ways_of_searching_find_the_same_codes():
    latents = naive.normal(2, 4, 3, 3)
    codebook = torch.from_numpy(np.random.default_rng(1).standard_normal((7, 4), dtype=np.float32))
    with torch.no_grad():
        found = {name: way() for name, way in search.ways(latents, codebook).items()}
    assert len(found) == 3
    assert all(torch.equal(codes.view(2, 3, 3), found[search.OURS]) for codes in found.values())


def test_agreement_is_of_all_positions_and_can_fail():
    model = make_model(Network(width=4, num_embeddings=8), VARIANTS["vq"])
    split = measure.made_split(300, 8)
    good = step.agreement_of(model, split, CPU, images=200)
    assert good == {"positions": 200 * 4, "share": 1.0}
    model.bottleneck.codebook.data[:] = model.bottleneck.codebook.data[0]
    model.bottleneck.codebook.data[1:] *= 1 + 1e-7 * torch.arange(1, 8).unsqueeze(1)  # codes that float32 confuses
    assert step.agreement_of(model, split, CPU, images=200)["share"] < 1


def test_large_images_come_in_smaller_batches_on_a_cpu():
    axes = {"size": (32, 128), "width": (8,)}
    assert [given["batch"] for _, given in growth.settings(growth.BASE, axes, gpu=False)] == [128, 32, 128]
    assert [given["batch"] for _, given in growth.settings(growth.BASE, axes, gpu=True)] == [128, 128, 128]


def test_the_page_on_gpus_counts_as_torch_does():
    """Operations are linear in pixels: those at 128 px are 16 times those at 32 px."""
    counted = 16 * measure.step_operations(measure.setting(batch=1), VARIANTS["vq"]) / 1e9
    budget, priors = load_experiment("imagenet_128").prior, operations_of_priors((32, 32))
    assert {getattr(budget, name).steps * budget.batch_size for name in priors} == {12_800_000}
    assert {getattr(budget, name).steps // budget.log_every for name in priors} == {10}
    text = " ".join((ROOT / "docs" / "multi_gpu.md").read_text().split())
    assert f"{counted:.1f} GFLOP at 128 px" in text
    of_priors = "{pixelcnn:.1f} GFLOP (PixelCNN), {transformer:.1f} (transformer) and {reals:.1f} (gains)"
    assert of_priors.format_map(priors) in text
    rows = re.findall(r"\| (\d+) % \| ([\d,]+) " + 5 * r"\| ([\d.]+) h " + r"\|", text)
    assert len(rows) == 3
    for share, *shown in rows:
        peak, single = (int(share) / 100 * peak for peak in (989e12, 67e12))
        training, prior = (12.8e6 * 1e9 * each / peak / 3600 for each in (counted, sum(priors.values())))
        passes = counted * (11 * 51_700 + 150_000 + 1_331_167 / 2) + sum(priors.values()) * 10 * 51_700
        forward = passes * 1e9 / 3 / single / 3600
        expected = [peak / counted / 1e9, training, prior, forward, training + prior + forward, training / (8 * 0.5)]
        assert [float(number.replace(",", "")) for number in shown] == pytest.approx(expected, rel=0.03)


def operations_of_priors(grid: tuple[int, int]) -> dict[str, float]:
    """GFLOP of an image under each network of imagenet_128, forward and backward; a gain at every position."""
    budget = load_experiment("imagenet_128").prior
    symbols, found = torch.zeros(1, *grid, 1, dtype=torch.int64), {}
    for name in ("pixelcnn", "transformer", "reals"):
        layers, channels = getattr(budget, name).layers, getattr(budget, name).channels
        network = make_network("transformer" if name == "transformer" else "pixelcnn", channels, layers, grid)
        with FlopCounterMode(display=False) as counter:
            if name == "reals":
                prior = RealPrior(network, channels, Layout((512,), grid, 1, False), 1)
                prior.log_prob(torch.zeros(1, 1, *grid), symbols, None).sum().backward()
            else:
                CodePrior(network, channels, (512,), 1).log_prob(symbols, None).sum().backward()
        found[name] = counter.get_total_flops() / 1e9
    return found


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "sampel", "vq-0"],
                                       ["train", "sample", "vq-7"]])  # fmt: skip
def test_no_torch_where_none_is_needed(arguments):
    """torch takes seconds to import; help and mistakes must not wait for it."""
    assert status_without_torch("vqlib", arguments) == (0 if "--help" in arguments else 2)
