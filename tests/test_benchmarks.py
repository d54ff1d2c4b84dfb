"""The benchmarks at toy sizes: they measure what they say. No test here looks at how long anything took."""

import json
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from support import VARIANTS

from benchmarks import growth, measure, naive, search, step
from benchmarks.page import page as page_of
from benchmarks.run import main
from vqlib.errors import DataError
from vqlib.model import make_model
from vqlib.params import ROOT, Network
from vqlib.training import train

CPU = torch.device("cpu")
TINY = measure.setting(width=4, size=8, batch=4, codes=8)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with results and page of every part that needs no other process."""
    folder = tmp_path_factory.mktemp("benchmarks")
    assert main(["bottlenecks", "search", "growth", "--small", "--device", "cpu", "--into", str(folder)]) == 0
    return folder


def results_of(folder) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in (folder / "results/benchmarks").glob("*.json")}


def test_every_result_names_machine_and_rounds(measured):
    found = results_of(measured)
    assert set(found) == {"bottlenecks_cpu.json", "search_cpu.json", "growth_cpu.json"}
    for result in found.values():
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
    train(experiment, measure.run_of(variant, experiment), split, measure.made_split(2, 8), CPU, torch.float32,
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
    text = (ROOT / "docs" / "multi_gpu.md").read_text()
    assert f"{counted:.1f} GFLOP at 128 px" in text
    rows = re.findall(r"\| (\d+) % \| ([\d,]+) \| ([\d.]+) h \| ([\d.]+) h \| ([\d.]+) h \|", text)
    assert len(rows) == 3
    for share, rate, alone, each, together in rows:
        expected = int(share) / 100 * 989e12 / counted / 1e9
        hours = 100_000 * 128 / expected / 3600
        shown = [float(number.replace(",", "")) for number in (rate, alone, each, together)]
        assert shown == pytest.approx([expected, hours, hours, hours / (8 * 0.5)], rel=0.03)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "sampel", "vq-0"],
                                       ["train", "sample", "vq-7"]])  # fmt: skip
def test_no_torch_where_none_is_needed(arguments):
    """torch takes seconds to import; help and mistakes must not wait for it."""
    code = f"""
import sys
from vqlib.__main__ import main
try:
    status = main({arguments!r})
except SystemExit as ended:
    status = ended.code
print(status, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{0 if '--help' in arguments else 2} False"
