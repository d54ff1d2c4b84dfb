"""Small inputs that tests share."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from vqlib.data.reader import Split
from vqlib.params import ROOT, Data, Experiment, Network, Run, Training, load_variants

torch.set_num_threads(1)  # tensors of tests are so small that a second thread costs more than it brings

VARIANTS = load_variants()  # all of the root's params.yaml: a new variant is tested with no edit
# for tests that train, where more numbers for the same code show nothing new
ONE_OF_EACH = list({variant.bottleneck: name for name, variant in reversed(VARIANTS.items())}.values())
KINDS = list({(v.bottleneck, *sorted(v.options)): name for name, v in reversed(VARIANTS.items())}.values())
NETWORK = Network(width=8, num_embeddings=512)  # 512 codes, since variants may name how many of them they use

HOLD = """
import sys, time
from pathlib import Path
from vqlib.files import exclusive
with exclusive(Path(sys.argv[1]), "training vq-0"):
    print("held", flush=True)
    time.sleep(60)
"""


def make_split(images: int = 20, size: int = 16, seed: int = 0, name: str = "train") -> Split:
    """Images of 4x4 random patches: as easy to learn as they are cheap to make."""
    draw = np.random.default_rng(seed)
    patches = draw.integers(0, 256, (images, 4, 4, 3), dtype=np.uint8)
    pixels = patches.repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    pixels.flags.writeable = False  # as the prepared array is
    return Split(name, pixels, np.zeros(images, np.int64), ["n00000000"], f"{seed:064x}")


def make_experiment(root=ROOT, network: Network = NETWORK, **training) -> Experiment:
    """An experiment of few steps on 16-pixel images. Its run names are free: it lists none."""
    budget = {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "device": "cpu", "precision": "float32", **training}
    return Experiment(
        name="smoke",
        title="Smoke",
        data=Data(source="photos", image_size=16),
        network=network,
        training=Training(**budget),
        root=root,
    )


def make_run(variant: str = "vq", seed: int = 0, learning_rate: float = 1e-3) -> Run:
    return Run(name=f"{variant}-{seed}", variant=VARIANTS[variant], seed=seed, learning_rate=learning_rate)


@contextlib.contextmanager
def held_by_another(folder: Path) -> Iterator[subprocess.Popen]:
    """Another process that trains vq-0 in ``folder``, as far as locks can tell."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
