"""Made-up latents of every shape that a bottleneck may store, axes of different sizes."""

import torch
from torch import Tensor

H, W, D = 5, 7, 3
ALPHABETS = (50, 16)
NAN = float("nan")


def draw(kind: str, images: int, seed: int) -> tuple[Tensor | None, Tensor | None]:
    """``indices, continuous`` of ``kind``, a name such as "code+gain" of KINDS."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    first, _, rest = kind.partition("+")
    codes = (uniform(images, H, W) ** 3 * ALPHABETS[0]).long()  # used unevenly
    second = (uniform(images, H, W) ** 2 * ALPHABETS[1]).long()
    indices = {"code": codes, "two": torch.stack([codes, second], dim=-1), "none": None}[first]
    scale = torch.tensor([1.0, 0.1, 10.0]).view(D, 1)  # channels differ
    frequent = codes < 9
    continuous = {
        "": lambda: None,
        "gain": lambda: normal(images, H, W) * 0.3 + 1,
        "row": lambda: normal(images, D, H) * scale,
        "vector": lambda: normal(images, D, H, W) * scale[..., None],
        "vector of rare codes": lambda: normal(images, D, H, W).masked_fill(frequent[:, None], NAN),
        "gain of rare codes": lambda: normal(images, H, W).masked_fill(frequent, NAN),
        "vector anywhere": lambda: normal(images, D, H, W).masked_fill(uniform(images, 1, H, W) < 0.7, NAN),
        "vector mostly of rare codes": lambda: normal(images, D, H, W).masked_fill(
            (frequent ^ (uniform(images, H, W) < 0.05))[:, None], NAN
        ),
        "element anywhere": lambda: normal(images, D, H, W).masked_fill(uniform(images, D, H, W) < 0.4, NAN),
        "row anywhere": lambda: normal(images, D, H).masked_fill(uniform(images, D, H) < 0.2, NAN),
        "vector nowhere": lambda: torch.full((images, D, H, W), NAN),
    }[rest]()
    return indices, continuous


def alphabets(indices: Tensor | None) -> tuple[int, ...]:
    return () if indices is None else ALPHABETS[: 1 if indices.dim() == 3 else 2]


KINDS = (
    "code", "two", "code+gain", "two+gain", "code+row", "none+vector", "code+vector", "code+vector of rare codes",
    "code+gain of rare codes", "code+vector mostly of rare codes", "code+vector anywhere", "none+vector anywhere",
    "none+element anywhere", "code+element anywhere", "code+row anywhere", "code+vector nowhere",
)  # fmt: skip
