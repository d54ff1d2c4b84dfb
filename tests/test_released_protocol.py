"""The released code's protocol of testing: batch statistics, the last batch dropped, nothing changed."""

import copy

import pytest
import torch
from support import NETWORK, VARIANTS, make_split

from vqlib import released_protocol as module
from vqlib.batches import Images
from vqlib.model import make_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("variant", ["vq", "projected_rows", "identity"])
def test_it_is_what_a_model_in_training_mode_gives_batch_by_batch(variant, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 8)
    images = Images(make_split(21, seed=3), CPU)
    model = make_model(NETWORK, VARIANTS[variant]).eval()
    before = copy.deepcopy(model.state_dict())
    found = module.released_protocol(model, images)
    assert found["images"] == 16  # of 21 in batches of 8
    assert not model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    training = copy.deepcopy(model).train()
    errors = []
    order = module.mixed(21)
    assert sorted(order.tolist()) == list(range(21)) != order.tolist()
    with torch.no_grad():
        for first in (0, 8):
            x = images.batch(order[first : first + 8])
            errors.append(float((training(x).reconstruction - x).square().mean()))
    assert found["mse"] == pytest.approx(sum(errors) / 2, rel=1e-5)
    with torch.no_grad():
        running = float((model(x).reconstruction - x).square().mean())
    assert abs(running / errors[1] - 1) > 1e-3  # running statistics give another error


def test_images_sorted_by_class_are_mixed_before_they_share_a_batch(monkeypatch):
    """Dark ones first, then bright ones: in that order every batch would be normalised by its own brightness alone."""
    monkeypatch.setattr(module, "BATCH", 16)
    pixels = torch.randint(0, 40, (256, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels[128:] += 200
    images = Images(make_split(256, size=8), CPU)
    monkeypatch.setattr(images, "batch", lambda part: pixels[part].permute(0, 3, 1, 2).float() / 127.5 - 1)
    model = make_model(NETWORK, VARIANTS["vq"]).eval()
    found = module.released_protocol(model, images)["mse"]
    monkeypatch.setattr(module, "mixed", torch.arange)
    in_order = module.released_protocol(model, images)["mse"]
    with torch.no_grad():
        whole = copy.deepcopy(model).train()(images.batch(torch.arange(256)))
        expected = float((whole.reconstruction - images.batch(torch.arange(256))).square().mean())
    assert abs(found / expected - 1) < 0.5 * abs(in_order / expected - 1)


def test_fewer_images_than_a_batch_have_no_such_number():
    assert module.released_protocol(make_model(NETWORK, VARIANTS["vq"]), Images(make_split(20), CPU)) is None
