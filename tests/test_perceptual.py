"""LPIPS and rFID where weights are on disk, and a reason where they are not; no download in either case."""

import pytest
import torch
from support import NETWORK, VARIANTS, make_split
from torch import nn

from vqlib import perceptual
from vqlib.errors import DataError
from vqlib.evaluation import evaluate
from vqlib.model import make_model
from vqlib.perceptual import WEIGHTS, Perceptual, weights_folder

CPU = torch.device("cpu")


class MeanDifference(nn.Module):
    """A stand-in for a metric of torchmetrics, whose file holds a factor."""

    def __init__(self, path):
        super().__init__()
        self.factor, self.seen = float(path.read_text()), {}

    def update(self, images, other=None, real=None):
        assert images.dtype == (torch.uint8 if other is None else torch.float32)
        assert other is None or images.abs().max() <= 1
        key = "both" if other is not None else real
        self.seen.setdefault(key, []).append(images.float() if other is None else (images - other).abs())

    def compute(self):
        means = {key: torch.cat(parts).mean() for key, parts in self.seen.items()}
        return self.factor * (means["both"] if "both" in means else (means[True] - means[False]).abs())


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a download")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("VQLIB_WEIGHTS", str(tmp_path))
    return tmp_path


def test_without_weights_a_reason_says_which_file_goes_where(weights):
    metric = Perceptual(32, CPU)
    metric.add(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32))
    values, reasons = metric.compute()
    assert values == {"lpips": None, "rfid": None}
    for name, file in WEIGHTS.items():
        assert file in reasons[name]
        assert "VQLIB_WEIGHTS" in reasons[name]
        assert "\n" not in reasons[name]


def test_weights_are_looked_for_in_the_folder_given_or_in_torch_hubs(weights, monkeypatch):
    assert weights_folder() == weights
    monkeypatch.delenv("VQLIB_WEIGHTS")
    monkeypatch.setenv("TORCH_HOME", str(weights / "torch"))
    assert weights_folder() == weights / "torch" / "hub" / "checkpoints"


def test_with_weights_an_evaluation_has_both_numbers(weights, monkeypatch):
    monkeypatch.setattr(perceptual, "BUILDERS", dict.fromkeys(WEIGHTS, MeanDifference))
    for factor, file in enumerate(WEIGHTS.values(), 2):
        (weights / file).write_text(str(factor))
    model = make_model(NETWORK, VARIANTS["vq"]).eval()
    test = make_split(7, 32, seed=2, name="test")
    found = evaluate(model, make_split(9, 32), test, CPU, batch_size=3)
    x = torch.tensor(test.images).permute(0, 3, 1, 2)
    with torch.no_grad():
        y = ((model(x / 127.5 - 1).reconstruction + 1) * 127.5).round().clamp(0, 255)
    assert found["test"]["lpips"] == pytest.approx(2 * (x - y).abs().mean().item() / 127.5, rel=1e-3)
    assert found["test"]["rfid"] == pytest.approx(3 * abs(x.float().mean() - y.mean()).item(), rel=1e-3)
    assert not {"lpips", "rfid"} & found["reasons"].keys()


def test_the_real_lpips_reads_its_network_from_the_folder(weights):
    """Random weights in the layout of torchvision's file: the number means nothing, but it is one."""
    from torchvision.models import alexnet

    before, hub = torch.get_rng_state(), torch.hub.get_dir()
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in alexnet(weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    state = {name: torch.randn(shape, generator=generator) * 0.1 if name.startswith("features")
             else torch.zeros(1).expand(shape) for name, shape in shapes.items()}  # fmt: skip
    torch.save(state, weights / WEIGHTS["lpips"])
    metric = Perceptual(32, CPU)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    metric.add(x, x)
    same = metric.compute()[0]["lpips"]
    metric.add(x, -x)
    values, reasons = metric.compute()
    assert same == 0 < values["lpips"]
    assert list(reasons) == ["rfid"]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.hub.get_dir() == hub


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_damaged_file_is_named_in_one_line(weights, name):
    (weights / WEIGHTS[name]).write_bytes(b"not weights")
    with pytest.raises(DataError, match=WEIGHTS[name]) as caught:
        Perceptual(32, CPU)
    assert "\n" not in str(caught.value)


def test_images_too_small_for_the_network_have_a_reason(weights):
    (weights / WEIGHTS["lpips"]).write_bytes(b"")
    assert Perceptual(16, CPU).compute()[1]["lpips"] == "its network needs images of 32 px at least"
