"""LPIPS and rFID through torchmetrics, where the weights of their networks are on disk. Nothing is ever downloaded.

Weights are looked for in the folder that the environment variable ``VQLIB_WEIGHTS`` names, else where torch.hub keeps
its own (``~/.cache/torch/hub/checkpoints``); both are under the names that torch.hub gives them. Without them the
metrics are null, with a reason that says what is missing.
"""

import os
import pickle
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from vqlib.distortion import to_8_bits
from vqlib.errors import DataError

WEIGHTS = {
    "lpips": "alexnet-owt-7be5be79.pth",  # torchvision's AlexNet; LPIPS' own small weights come with torchmetrics
    "rfid": "weights-inception-2015-12-05-6726825d.pth",  # torch-fidelity's port of FID's Inception
}
LEAST_PIXELS = {"lpips": 32, "rfid": 1}  # of smaller images nothing is left at AlexNet's last layer
LEAST_IMAGES = 2  # for rFID's covariances


def weights_folder() -> Path:
    """Where weights are looked for."""
    folder = os.environ.get("VQLIB_WEIGHTS")
    return Path(folder).expanduser() if folder else Path(torch.hub.get_dir()) / "checkpoints"


class Perceptual:
    """Adds up over batches; ``compute`` gives ``lpips``, ``rfid`` and the reasons for those that are None.

    Raises:
        DataError: a file of weights is damaged.
    """

    def __init__(self, image_size: int, device: torch.device):
        self.metrics: dict[str, nn.Module] = {}
        self.reasons: dict[str, str] = {}
        self.images = 0
        for name, file in WEIGHTS.items():
            path = weights_folder() / file
            if image_size < LEAST_PIXELS[name]:
                self.reasons[name] = f"its network needs images of {LEAST_PIXELS[name]} px at least"
            elif not path.is_file():
                self.reasons[name] = (f"its network's weights are not on this machine: {file} is looked for in the "
                                      "folder that VQLIB_WEIGHTS names, else in torch.hub's")  # fmt: skip
            else:
                self.metrics[name] = built(name, path).to(device).eval()

    @torch.no_grad()
    def add(self, x: Tensor, y: Tensor) -> None:
        """Originals and reconstructions (B, 3, H, W) in [-1, 1], rounded to 8 bits first."""
        self.images += len(x)
        a, b = to_8_bits(x), to_8_bits(y)
        if "lpips" in self.metrics:
            self.metrics["lpips"].update(b / 127.5 - 1, a / 127.5 - 1)
        if "rfid" in self.metrics:
            self.metrics["rfid"].update(a.byte(), real=True)
            self.metrics["rfid"].update(b.byte(), real=False)

    def compute(self) -> tuple[dict[str, float | None], dict[str, str]]:
        values: dict[str, float | None] = dict.fromkeys(WEIGHTS)
        reasons = dict(self.reasons)
        for name, metric in self.metrics.items():
            if name == "rfid" and self.images < LEAST_IMAGES:
                reasons[name] = f"{LEAST_IMAGES} images at least are needed"
            else:
                values[name] = float(metric.compute())
        return values, reasons


def built(name: str, path: Path) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):  # networks draw weights before they read them
            return BUILDERS[name](path)
    except (OSError, RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not the weights for {name}, or damaged ({reason}); fetch it again") from None


def _lpips(path: Path) -> nn.Module:
    """Zhang et al. 2018, version 0.1 with AlexNet, which its authors name for comparing; mean over images."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    before = torch.hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:  # where torchvision looks, with the weights in it
        (Path(folder) / "checkpoints").mkdir()
        (Path(folder) / "checkpoints" / path.name).symlink_to(path.resolve())
        torch.hub.set_dir(folder)
        try:
            return LearnedPerceptualImagePatchSimilarity(net_type="alex")
        finally:
            torch.hub.set_dir(before)


def _rfid(path: Path) -> nn.Module:
    """Heusel et al. 2017, between originals and reconstructions."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(path))


BUILDERS = {"lpips": _lpips, "rfid": _rfid}
