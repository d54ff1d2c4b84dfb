"""Fréchet inception distance through torchmetrics, where its network's weights are on the machine: none are fetched."""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from vqlib.evaluation import to_8_bits
from vqlib.files import digest_of

WEIGHTS = "weights-inception-2015-12-05-6225c2f0.pth"  # of torch-fidelity; the name ends in the sha256's beginning


def what_is_missing() -> str | None:
    """One line that says what FID needs and where it belongs; None where all is there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    if importlib.util.find_spec("torch_fidelity") is None:
        return "FID needs the package torch-fidelity, which is not installed"
    if not path.is_file():
        return (f"FID needs {WEIGHTS} of torch-fidelity's releases, which is not on this machine; it belongs into "
                "~/.cache/torch/hub/checkpoints, or $TORCH_HOME/hub/checkpoints")  # fmt: skip
    if not digest_of(path.read_bytes()).startswith(Path(WEIGHTS).stem.rsplit("-", 1)[1]):
        return f"FID needs {WEIGHTS}, and the file of this name in torch's hub is damaged; put a whole one there"
    return None


@torch.no_grad()
def fid(real: Tensor, generated: Tensor, device: torch.device, feature: int | nn.Module = 2048) -> float:
    """Between two sets of images (N, 3, H, W) in [-1, 1], rounded to 8 bits. Depends on N: compare equal ones only."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=feature).to(device)
    for images, is_real in ((real, True), (generated, False)):
        for part in images.split(100):
            metric.update(to_8_bits(part.to(device)).byte(), real=is_real)
    return float(metric.compute())
