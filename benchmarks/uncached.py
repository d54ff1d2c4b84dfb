"""A network without cached state: a whole forward pass for every position. What the fast path is held to."""

from torch import Tensor, nn


class Uncached(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.shape = network, network.shape

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.network(x, condition)

    def start(self, x: Tensor, condition: Tensor) -> dict[str, Tensor]:
        return {"x": x.new_zeros(*x.shape[:2], *self.shape), "condition": condition}

    def step(self, state: dict[str, Tensor], place: int, before: Tensor | None) -> Tensor:
        if before is not None:
            state["x"].flatten(2)[:, :, place - 1] = before
        return self.network(state["x"], state["condition"]).flatten(2)[:, :, place]
