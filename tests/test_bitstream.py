"""Streams give back what went in, at the length that the tables promise, for all shapes of latents and all variants."""

from collections import Counter

import numpy as np
import pytest
import torch
from latents import KINDS, H, W, alphabets, draw
from support import NETWORK, VARIANTS, make_split

from vqlib.batches import Images
from vqlib.bitstream import FLOAT, Codec
from vqlib.evaluation import learn_ranges
from vqlib.model import make_model
from vqlib.rate import PRECISIONS, Bill
from vqlib.tables import Counts
from vqlib.uniform import UniformQuantizer

TRAIN, TEST = 200, 120  # images
ROUNDING = 64  # bits that a stream may be longer for ending at a whole word


def learnt(kind: str) -> tuple[Counts, Codec]:
    """Tables from training latents, a range for each of the D channels where there are channels."""
    indices, continuous = draw(kind, TRAIN, seed=1)
    channels = 1 if continuous is not None and continuous.dim() > 1 and continuous.shape[1] == 3 else None
    quantizers = {} if continuous is None else {b: UniformQuantizer(continuous, b, channels) for b in PRECISIONS}
    counts = Counts(alphabets(indices), quantizers)
    for part in (slice(0, 90), slice(90, None)):
        counts.add(*(None if whole is None else whole[part] for whole in (indices, continuous)))
    return counts, Codec(counts, indices, continuous)


def same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    """Equal to the bit, NaN where NaN is."""
    if a is None or b is None:
        return a is b
    equal = np.array_equal(a.numpy(), b.numpy(), equal_nan=a.is_floating_point())
    return equal and (a.dtype, a.shape) == (b.dtype, b.shape)


def bits_under(trained: list, tested: list, size: int) -> float:
    """Brute force: -log2 of each tested symbol's share among the trained, half a count added to each of ``size``."""
    seen = Counter(trained)
    return sum(-n * np.log2((seen[s] + 0.5) / (len(trained) + size / 2)) for s, n in Counter(tested).items())


@pytest.mark.parametrize("kind", KINDS)
def test_streams_decode_to_what_was_encoded_and_are_as_long_as_the_cross_entropy(kind):
    _, codec = learnt(kind)
    indices, continuous = draw(kind, TEST, seed=2)
    bill = Bill(alphabets(indices), codec)
    bill.add(indices, continuous)
    rates = bill.rates(pixels=1000)
    for bits in [None, *([] if continuous is None else [*PRECISIONS, FLOAT])]:
        data, _ = codec.encode(indices, continuous, bits)
        found, numbers = codec.decode(data, TEST, bits)
        assert same(found, indices)
        quantised = continuous if bits in (None, FLOAT) else codec.quantizers[bits](continuous)
        assert same(numbers, None if bits is None else quantised)
        row = {row["bits"]: row for row in rates["precisions"]}.get(bits)
        expected = (row or rates)["bpp_cross_entropy"]
        if expected is not None:
            expected *= 1000 * TEST
            assert expected <= 8 * len(data) + 1
            assert 8 * len(data) <= 1.02 * expected + ROUNDING


@pytest.mark.parametrize("kind", ["code+gain", "two+gain", "code+vector of rare codes", "none+vector"])
def test_the_cross_entropy_is_that_of_a_brute_force_count(kind):
    _, codec = learnt(kind)
    (indices, continuous), (seen, trained) = draw(kind, TEST, seed=2), draw(kind, TRAIN, seed=1)
    bill = Bill(alphabets(indices), codec)
    bill.add(indices, continuous)
    rates = bill.rates(pixels=1000)
    codes = 0.0
    for place, size in enumerate(alphabets(indices)):
        before, now = (x if x.dim() == 3 else x[..., place] for x in (seen, indices))
        codes += bits_under(before.flatten().tolist(), now.flatten().tolist(), size)
    if indices is not None:
        assert rates["bpp_cross_entropy"] * 1000 * TEST == pytest.approx(codes, rel=1e-9)
    groups = [slice(None)] if continuous.dim() == 3 else [(slice(None), channel) for channel in range(3)]
    for row in rates["precisions"][:-1]:
        levels = 0.0
        for group in groups:
            quantizer = codec.quantizers[row["bits"]]
            old, new = (quantizer.indices(x)[group][~x[group].isnan()] for x in (trained, continuous))
            levels += bits_under(old.tolist(), new.tolist(), 2 ** row["bits"])
        mask = (rates["bpp_mask"] or 0) * 1000 * TEST + (0 if rates["bpp_mask"] is not None else 2)
        assert row["bpp_cross_entropy"] * 1000 * TEST == pytest.approx(codes + levels + mask, rel=1e-6)
    assert rates["precisions"][-1]["bpp_bitstream"] * 1000 * TEST == pytest.approx(
        codes + 32 * (~continuous.isnan()).sum().item(), rel=2e-3
    )


def test_a_mask_that_the_code_implies_costs_next_to_nothing_and_another_one_its_entropy():
    cost = {}
    for kind in KINDS:
        _, codec = learnt(kind)
        indices, continuous = draw(kind, TEST, seed=2)
        cost[kind] = codec.encode(indices, continuous, FLOAT)[1] / (TEST * H * W)
    entropy = {p: -p * np.log2(p) - (1 - p) * np.log2(1 - p) for p in (0.05, 0.2, 0.3, 0.4)}
    assert cost["code+gain"] == cost["code+vector"] == 2 / (TEST * H * W)
    assert max(cost["code+vector of rare codes"], cost["code+gain of rare codes"]) < 1e-3
    assert cost["code+vector anywhere"] == pytest.approx(entropy[0.3], rel=0.05)
    assert cost["none+vector anywhere"] == pytest.approx(entropy[0.3], rel=0.05)
    assert cost["none+element anywhere"] == pytest.approx(3 * entropy[0.4], rel=0.05)
    assert cost["code+row anywhere"] == pytest.approx(3 / W * entropy[0.2], rel=0.05)
    assert cost["code+vector mostly of rare codes"] == pytest.approx(entropy[0.05], rel=0.15)  # not that of 1 in 2


def test_codes_and_masks_that_training_never_saw_are_coded_all_the_same():
    counts = Counts((50,), {2: UniformQuantizer(torch.ones(1, 3, H, W), 2, axis=1)})
    indices, continuous = draw("code+vector mostly of rare codes", TEST, seed=2)
    counts.add(torch.zeros(1, H, W, dtype=torch.int64), torch.ones(1, 3, H, W))
    codec = Codec(counts, indices, continuous)
    for bits in (None, 2, FLOAT):
        data, _ = codec.encode(indices, continuous, bits)
        codec.verify(data, indices, continuous, bits)


def test_a_stream_of_other_content_is_told_apart():
    _, codec = learnt("code+gain")
    indices, continuous = draw("code+gain", TEST, seed=2)
    data, _ = codec.encode(indices, continuous, 8)
    codec.verify(data, indices, continuous, 8)
    with pytest.raises(RuntimeError, match="other codes"):
        codec.verify(data, indices.flip(0), continuous, 8)
    with pytest.raises(RuntimeError, match="other continuous numbers"):
        codec.verify(data, indices, continuous + 0.5, 8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_reconstructs_the_same_from_its_stream(variant):
    """Through compress and decompress alone; equal to the bit where batches are the same."""
    model = make_model(NETWORK, VARIANTS[variant])
    images = Images(make_split(48), torch.device("cpu"))
    with torch.no_grad():
        model(images.batch(torch.arange(48)))  # buffers hold something
        model.eval()
        trained = model.bottleneck.compress(model.encode(images.batch(torch.arange(24))))
        indices, continuous = model.bottleneck.compress(model.encode(images.batch(torch.arange(24, 48))))
        quantizers, _ = learn_ranges(model, images, batch_size=24)
        counts = Counts(model.bottleneck.alphabets, quantizers)
        counts.add(*trained)
        codec = Codec(counts, *trained)
        for bits in [None] if continuous is None else [4, FLOAT]:
            data, _ = codec.encode(indices, continuous, bits)
            decoded = codec.decode(data, 24, bits)
            assert same(decoded[0], indices)
            stored = continuous if bits in (None, FLOAT) else quantizers[bits](continuous)
            expected = model.decode(model.bottleneck.decompress(indices, stored))
            assert torch.equal(model.decode(model.bottleneck.decompress(*decoded)), expected)
