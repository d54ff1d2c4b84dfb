"""Fréchet inception distance through torchmetrics, where its network's weights are on the machine: none are fetched."""

import torch
from torch import Tensor, nn

from vqlib.distortion import to_8_bits
from vqlib.perceptual import WEIGHTS, built, weights_folder


def what_is_missing() -> str | None:
    """One line that says what FID needs and where it belongs; None where all is there."""
    file = WEIGHTS["rfid"]
    if (weights_folder() / file).is_file():
        return None
    return (f"FID needs {file} from torch-fidelity's releases, which is not on this machine; it is looked for in the "
            "folder that VQLIB_WEIGHTS names, else in torch.hub's checkpoints")  # fmt: skip


@torch.no_grad()
def fid(real: Tensor, generated: Tensor, device: torch.device, feature: nn.Module | None = None) -> float:
    """Between two sets of images (N, 3, H, W) in [-1, 1], rounded to 8 bits. Depends on N: compare equal ones only.

    ``feature`` takes the place of the Inception network. Raises DataError where that one's weights are damaged.
    """
    if feature is None:
        metric = built("rfid", weights_folder() / WEIGHTS["rfid"])
    else:
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(feature=feature)
    metric = metric.to(device)
    for images, is_real in ((real, True), (generated, False)):
        for part in images.split(100):
            metric.update(to_8_bits(part.to(device)).byte(), real=is_real)
    return float(metric.compute())
