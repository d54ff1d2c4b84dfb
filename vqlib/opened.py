"""A trained run, opened: its weights, held against the parameters and data that there are now."""

from typing import Any, NamedTuple

import torch

from vqlib.data.reader import SPLITS, Split, open_split
from vqlib.device import make_deterministic, pick_device
from vqlib.errors import DataError
from vqlib.files import digest_of
from vqlib.model import VQVAE, load_model
from vqlib.params import Experiment, Run
from vqlib.provenance import differences


class Opened(NamedTuple):
    """A trained run, ready to be measured or sampled from."""

    model: VQVAE  # on the device
    provenance: dict[str, Any]  # of its training
    weights: str  # digest of the model's file
    splits: dict[str, Split]
    device: torch.device


def open_run(experiment: Experiment, run: Run, names: tuple[str, ...] = SPLITS) -> Opened:
    """Raises DataError: no model, or one that was trained otherwise, or on other data, than params.yaml now says."""
    file = experiment.run_folder(run) / "model.safetensors"
    model, description = load_model(file)
    device = pick_device(experiment.training.device)
    make_deterministic()
    splits = {name: open_split(experiment.prepared, name, experiment.data.image_size) for name in names}
    if other := differences(description, experiment, run, splits[names[0]].digest):
        raise DataError(f"{file}: trained with other values of {', '.join(other)} than there are now in params.yaml "
                        f"and {experiment.prepared}; train the run again")  # fmt: skip
    return Opened(model.to(device), description["provenance"], digest_of(file.read_bytes()), splits, device)
