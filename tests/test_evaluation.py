"""Metrics against independent computations; what evaluation must leave alone."""

import copy
import io
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from support import NETWORK, VARIANTS, make_split
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

from vqlib.batches import Images
from vqlib.distortion import Reference, distortion, to_8_bits
from vqlib.evaluation import evaluate, learn_ranges, reconstruction_strip, spread
from vqlib.model import make_model
from vqlib.params import Network

CPU = torch.device("cpu")
TRAIN, TEST = make_split(30, seed=1), make_split(13, seed=2, name="test")
SKIMAGE = {"channel_axis": 2, "data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def pictures(images: int = 3, height: int = 16, width: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth images and noisy copies, in [-1, 1]."""
    draw = np.random.default_rng(0)
    clean = gaussian_filter(draw.normal(size=(images, 3, height, width)), sigma=(0, 0, 2, 2)) * 3
    noise = draw.normal(size=clean.shape) * 0.1
    return tuple(torch.tensor(np.tanh(pixels), dtype=torch.float32) for pixels in (clean, clean + noise))


def eight_bits(x: torch.Tensor) -> np.ndarray:
    """(B, H, W, 3) whole numbers, by numpy."""
    return np.clip(np.rint((x.double().numpy() + 1) / 2 * 255), 0, 255).transpose(0, 2, 3, 1)


def trained_a_little(variant: str, network: Network = NETWORK):
    """A model whose BatchNorm and buffers have seen a batch, with codes of the size of its latents."""
    model = make_model(network, VARIANTS[variant])
    x = Images(TRAIN, CPU).batch(torch.arange(8))
    with torch.no_grad():
        model(x)
        for name, parameter in model.named_parameters():
            if name.endswith("codebook"):
                parameter.mul_(network.num_embeddings)
        model(x)
    return model.eval()


def test_mse_and_psnr_are_those_of_numpy_and_scikit_image():
    x, y = pictures()
    found = distortion(x, y)
    expected = ((x.double() - y.double()).numpy() ** 2).reshape(len(x), -1).mean(axis=1)
    np.testing.assert_allclose(found["mse"], expected, rtol=1e-5)
    expected = [
        peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(eight_bits(x), eight_bits(y), strict=True)
    ]
    np.testing.assert_allclose(found["psnr"], expected, rtol=1e-5)


def test_ssim_is_scikit_images_inside_and_counts_the_border_too():
    x, y = pictures()
    found = distortion(x, y)["ssim"].numpy()
    pairs = list(zip(eight_bits(x), eight_bits(y), strict=True))
    assert np.abs(found - [structural_similarity(a, b, **SKIMAGE) for a, b in pairs]).max() > 1e-3
    maps = [ssim_map(a, b) for a, b in pairs]
    np.testing.assert_allclose(found, [m.mean() for m in maps], rtol=1e-4)
    for (a, b), ours in zip(pairs, maps, strict=True):
        _, theirs = structural_similarity(a, b, full=True, **SKIMAGE)
        np.testing.assert_allclose(ours[5:-5, 5:-5], theirs[5:-5, 5:-5], rtol=1e-6)


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Wang et al. 2004, equation 13, at every pixel of (H, W, 3); images are mirrored about their border pixels."""

    def blurred(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, sigma=(1.5, 1.5, 0), radius=(5, 5, 0), mode="mirror")

    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b, cov = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2, blurred(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 20), (33, 12)])
def test_ssim_is_that_of_torchmetrics(height, width):
    x, y = pictures(3, height, width)
    expected = torchmetrics_ssim(to_8_bits(y), to_8_bits(x), data_range=255.0, reduction="none")
    torch.testing.assert_close(distortion(x, y)["ssim"], expected, rtol=2e-6, atol=2e-6)
    reference = Reference(x)
    for other in (y, x / 2, -x):  # one reference, several reconstructions
        again = distortion(x, other)
        assert all(torch.equal(value, again[key]) for key, value in reference.distortion(other).items())


@pytest.mark.parametrize("size", [8, 12])
def test_small_images_and_perfect_ones_have_finite_numbers(size):
    x, y = pictures(2, size, size)
    assert all(value.isfinite().all() for value in distortion(x, y).values())
    whole = to_8_bits(x) / 127.5 - 1
    perfect = distortion(whole, whole + 1e-3)  # a quarter of half a step of 8 bits
    assert perfect["ssim"].tolist() == pytest.approx([1, 1])
    assert perfect["psnr"].tolist() == pytest.approx([10 * np.log10(255**2 * 3 * size**2)] * 2)
    assert perfect["mse"].tolist() == pytest.approx([1e-6] * 2, rel=1e-2)


def test_every_value_of_8_bits_survives_the_way_to_floats_and_back():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_8_bits(values.float() / 127.5 - 1), values.float())
    assert to_8_bits(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]


@pytest.mark.parametrize("variant", VARIANTS)
def test_metrics_are_means_over_whole_splits_whatever_the_batch_size(variant):
    model = trained_a_little(variant)
    found = evaluate(model, TRAIN, TEST, CPU, batch_size=5)
    again = evaluate(model, TRAIN, TEST, CPU, batch_size=13)
    for split in ("test", "train"):
        assert found[split]["images"] == 13
        for key, value in found[split].items():
            assert value == (None if value is None else pytest.approx(again[split][key], rel=1e-4))
    for key in ("bpp_codes", "bpp_8bit", "bpp_32bit", "bpp_entropy", "bpp_cross_entropy", "continuous_fraction"):
        expected = again["rate"][key]
        assert found["rate"][key] == (None if expected is None else pytest.approx(expected, rel=1e-4))

    x = Images(TEST, CPU).batch(torch.arange(13))
    with torch.no_grad():
        y, losses, _ = model(x)
    assert found["test"]["mse"] == pytest.approx((x - y).square().mean().item(), rel=1e-4)
    for key, loss in (("quantization", "commitment_loss"), ("projection", "projection_loss")):
        expected = losses[loss].item() if loss in losses else None
        assert found["test"][key] == (None if expected is None else pytest.approx(expected, rel=1e-4))
    assert found["test"]["mse"] != found["train"]["mse"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_perplexity_and_usage_count_every_code_of_the_split(variant):
    model = trained_a_little(variant)
    found = evaluate(model, TRAIN, TEST, CPU, batch_size=5)["test"]
    with torch.no_grad():
        indices = model(Images(TEST, CPU).batch(torch.arange(13))).indices
    if indices is None:
        assert found["perplexity"] is None
        assert found["codebook_usage"] is None
        return
    codes = (indices if indices.dim() == 3 else indices[..., 0]).flatten().tolist()
    share = np.array([codes.count(code) / len(codes) for code in set(codes)])
    assert found["perplexity"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)
    assert found["codebook_usage"] == len(share) / model.bottleneck.alphabets[0]
    assert len(share) > 1


def test_rates_stand_beside_the_errors_as_the_paper_counts_them():
    bits = {"vq": lambda b: 9 / 16, "projected": lambda b: (9 + b) / 16}
    bits["projected_rows"] = lambda b: 9 / 16 + NETWORK.width * b / (4 * 16)  # images 16 wide
    bits["identity"] = lambda b: NETWORK.width * b / 16
    for variant, expected in bits.items():
        rate = evaluate(trained_a_little(variant), TRAIN, TEST, CPU)["rate"]
        assert rate["bpp_codes"] == (None if variant == "identity" else 9 / 16)
        assert (rate["bpp_8bit"], rate["bpp_32bit"]) == (expected(8), expected(32))


@pytest.mark.parametrize("variant", ["projected", "projected_rows", "identity"])
def test_eight_bits_cost_little_and_are_missing_where_nothing_is_continuous(variant):
    found = evaluate(trained_a_little(variant), TRAIN, TEST, CPU)["test"]
    assert found["mse_8bit"] != found["mse"]
    assert found["mse_8bit"] == pytest.approx(found["mse"], rel=0.02)
    discrete = evaluate(trained_a_little("vq"), TRAIN, TEST, CPU)["test"]
    assert {discrete[f"{key}_8bit"] for key in ("mse", "psnr", "ssim")} == {None}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_result_is_whole(variant):
    """Every null has a reason, every curve its distortion, every stream its bits; a few kilobytes in all."""
    found = evaluate(trained_a_little(variant), TRAIN, TEST, CPU, batch_size=5)
    assert found.keys() == {"test", "train", "rate", "codes", "gains", "reasons", "released_protocol"}
    rate, rows = found["rate"], found["rate"]["precisions"]
    assert len(json.dumps(found)) < 30_000
    assert rate["table_images"] == 13
    assert ("codes" in found["reasons"]) == (found["codes"] == []) == (rate["bpp_codes"] is None)
    assert ("rate.precisions" in found["reasons"]) == (rows == []) == (found["test"]["mse_8bit"] is None)
    assert found["gains"] is None or rows
    assert found["test"]["lpips"] is None and "lpips" in found["reasons"]
    if found["codes"]:
        assert len(found["codes"]) == len(make_model(NETWORK, VARIANTS[variant]).bottleneck.alphabets)
        assert found["test"]["perplexity"] == found["codes"][0]["perplexity"]
        assert 0 < rate["bpp_entropy"] <= rate["bpp_cross_entropy"]
    if rows:
        by_bits = {row["bits"]: row for row in rows}
        assert list(by_bits) == [2, 4, 6, 8, 32]
        assert all(by_bits[32][key] == found["test"][key] for key in ("mse", "psnr", "ssim"))
        assert all(by_bits[8][key] == found["test"][f"{key}_8bit"] for key in ("mse", "psnr", "ssim"))
        assert by_bits[32]["bpp_nominal"] == pytest.approx(rate["bpp_32bit"])
        assert np.all(np.diff([row["bpp_bitstream"] for row in rows]) >= 0)
        error = [abs(by_bits[bits]["mse"] - by_bits[32]["mse"]) for bits in (2, 8)]
        assert error[1] <= max(error[0], 1e-3 * found["test"]["mse"])
    if found["gains"]:
        edges, shares = found["gains"]["edges"], found["gains"]["shares"]
        assert (len(edges), len(shares)) == (65, 64)
        assert sum(shares) == pytest.approx(1)
        assert np.all(np.diff(edges) > 0)


def test_gains_are_counted_where_they_lie():
    model = trained_a_little("projected")
    found = evaluate(model, TRAIN, TEST, CPU)["gains"]
    with torch.no_grad():
        gains = model.bottleneck.compress(model.encode(Images(TEST, CPU).batch(torch.arange(13))))[1].flatten().numpy()
    edges = found["edges"]
    for edge in (10, 32, 60):
        assert sum(found["shares"][:edge]) == pytest.approx((gains < edges[edge]).mean(), abs=1e-3)
    assert evaluate(trained_a_little("identity"), TRAIN, TEST, CPU)["gains"] is None


@pytest.mark.parametrize("variant", ["gain_shape_4", "vq_residual", "fsq", "vq"])
def test_the_value_of_each_level_of_a_gain_stands_beside_its_share(variant):
    """Only where a symbol is a gain: the second code of a residual quantizer adds, and one of three FSQ levels too."""
    model = trained_a_little(variant)
    symbols = evaluate(model, TRAIN, TEST, CPU)["codes"]
    assert [key for symbol in symbols for key in symbol if key == "values"] == ["values"] * (variant == "gain_shape_4")
    if variant == "gain_shape_4":
        levels = model.bottleneck.levels.codes.flatten()
        sign = torch.sign(levels[levels.abs().argmax()])
        assert symbols[1]["values"] == pytest.approx((sign * levels).tolist(), rel=1e-4)
        assert min(symbols[1]["values"]) < 0 and len(symbols[1]["levels"]) == 16


@pytest.mark.parametrize(("variant", "same"), [("frequency_released_312", False), ("vq", True)])
def test_what_mixes_images_gets_them_in_mixed_order_and_the_released_batches(variant, same, monkeypatch):
    """Prepared images are sorted by class: here by brightness, so that every batch in that order has few codes."""
    monkeypatch.setattr("vqlib.evaluation.BATCH", 8)
    options = {"num_frequent": 1} if variant.startswith("frequency") else {}
    network = Network(width=8, num_embeddings=8)
    model = make_model(network, VARIANTS[variant].model_copy(update={"options": options}))
    model.bottleneck.begin(1)
    with torch.no_grad():
        x = Images(TRAIN, CPU).batch(torch.arange(8))
        model(x)  # past the warm-up
        model.eval().bottleneck.codebook.copy_(model.encode(x)[:, :, 1, 1])  # so that all are in use
    found = {size: evaluate(model, TRAIN, TEST, CPU, batch_size=size)["test"]["mse"] for size in (2, 13)}
    assert found[2] == pytest.approx(found[13], rel=1e-6)  # the size is the bottleneck's to say, or does not matter
    monkeypatch.setattr("vqlib.evaluation.mixed", torch.arange)
    assert (evaluate(model, TRAIN, TEST, CPU)["test"]["mse"] == pytest.approx(found[2], rel=1e-6)) is same


@pytest.mark.parametrize(("variant", "groups"), [("projected", 1), ("projected_rows", 8), ("identity", 8)])
def test_channels_have_ranges_of_their_own(variant, groups):
    """Width 8, and at 32 pixels 8 x 8 positions: the axes cannot be told apart by their sizes."""
    model = make_model(NETWORK, VARIANTS[variant]).eval()
    images = Images(make_split(4, 32), CPU)
    with torch.no_grad():
        quantizers, _ = learn_ranges(model, images, 250)
    assert {one.groups for one in quantizers.values()} == {groups}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("variant", ["vq", "projected", "projected_rows", "identity"])
def test_weights_that_are_of_no_use_are_measured_all_the_same(variant, value):
    """The one who saves results refuses what is not finite; nothing here may fail before."""
    model = trained_a_little(variant)
    with torch.no_grad():
        model.encoder.layers[0].weight.fill_(value)
        model.decoder.layers[0].body[0].weight.fill_(value)
    assert not np.isfinite(evaluate(model, TRAIN, TEST, CPU)["test"]["mse"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluation_leaves_everything_as_it_was(variant):
    model = make_model(NETWORK, VARIANTS[variant]).train()
    model.decoder.layers[0].eval()  # flags that are not all the same
    state = copy.deepcopy(model.state_dict())
    flags = [part.training for part in model.modules()]
    wants = [p.requires_grad for p in model.parameters()]
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    evaluate(model, TRAIN, TEST, CPU, batch_size=5)
    reconstruction_strip(model, TEST, CPU)

    after = model.state_dict()
    assert state.keys() == after.keys()
    assert all(torch.equal(state[key], after[key]) for key in state)
    assert [part.training for part in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == wants
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])
    assert random.getstate() == generators[2]


def test_the_strip_shows_originals_above_reconstructions():
    model, split = trained_a_little("vq"), make_split(40, seed=4, name="test")
    pixels = np.asarray(Image.open(io.BytesIO(reconstruction_strip(model, split, CPU))))
    assert pixels.shape == (2 * 16, 16 * 16, 3)
    for place, image in enumerate(spread(40, 16)):
        above = pixels[:16, 16 * place : 16 * (place + 1)]
        assert np.array_equal(above, split.images[image])
        with torch.no_grad():
            y = model(Images(split, CPU).batch(image[None])).reconstruction
        below = pixels[16:, 16 * place : 16 * (place + 1)].astype(int)
        assert np.abs(below - eight_bits(y)[0]).max() <= 1  # a batch of another size may round otherwise


@pytest.mark.parametrize(("total", "wanted"), [(10, 4), (1_281_167, 50_000), (7, 7), (5, 9), (1, 3)])
def test_spread_takes_different_images_evenly(total, wanted):
    chosen = spread(total, wanted)
    assert len(chosen) == len(chosen.unique()) == min(total, wanted)
    assert chosen[0] == 0
    assert chosen[-1] == (total - 1 if len(chosen) > 1 else 0)
    gaps = chosen.diff()
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
