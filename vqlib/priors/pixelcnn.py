"""Gated PixelCNN (van den Oord et al. 2016, *Conditional image generation with PixelCNN decoders*).

A vertical stack sees all rows above, a horizontal one what is left in the row and the vertical one's features.
Causality comes from where inputs are padded and what is cut off, so no weight is ever masked or written into. Sizes
are those of the prior that the paper took: kernel 7 first, then 3, residuals in the horizontal stack alone. Unlike that
implementation, the head's hidden layer has four times the channels (``codes.Head``), one embedding of the class serves
all layers, and training lowers Adam's rate along a cosine and clips gradients at norm 1; theirs is plain Adam at 3e-4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def gate(x: Tensor) -> Tensor:
    """tanh of the first half of the channels times the sigmoid of the second (equation 2)."""
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


class Layer(nn.Module):
    """One gated layer. ``first``: the position itself is hidden, and there is no residual (mask A).

    reach: rows above, and positions to each side, that the layer sees.
    """

    def __init__(self, channels: int, reach: int, first: bool):
        super().__init__()
        self.reach, self.first = reach, first
        own = 0 if first else 1
        self.vertical = nn.Conv2d(channels, 2 * channels, (reach + own, 2 * reach + 1))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, reach + own))
        self.across = nn.Conv2d(2 * channels, 2 * channels, 1)  # vertical to horizontal
        self.condition = nn.Conv2d(channels, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, v: Tensor, h: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks, (B, C, h, w) each, of the next layer."""
        r = self.reach
        given = self.condition(condition)
        rows = self.vertical(F.pad(v, (r, r, r, 0)))[:, :, : v.shape[2]]
        row = self.horizontal(F.pad(h, (r, 0, 0, 0)))[..., : h.shape[3]]
        return gate(rows + given), self.join(gate(row + self.across(rows) + given), h)

    def join(self, gated: Tensor, h: Tensor) -> Tensor:
        return self.out(gated) if self.first else self.out(gated) + h


class Network(nn.Module):
    def __init__(self, channels: int, layers: int, shape: tuple[int, int]):
        super().__init__()
        self.shape = shape
        self.layers = nn.ModuleList(Layer(channels, 1 if n else 3, first=n == 0) for n in range(layers))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        v = h = x
        for layer in self.layers:
            v, h = layer(v, h, condition)
        return h

    def start(self, x: Tensor, condition: Tensor) -> dict[str, list[Tensor]]:
        """Inputs of every layer, zero where nothing is known yet, with their padding; the last entry is the output."""
        (height, width), (batch, channels) = self.shape, x.shape[:2]
        reach = [layer.reach for layer in self.layers]
        return {
            "v": [x.new_zeros(batch, channels, height + r, width + 2 * r) for r in reach],
            "h": [x.new_zeros(batch, channels, height, width + r) for r in reach],
            "across": [x.new_zeros(batch, 2 * channels, width) for _ in reach],  # of the current row
            "given": [layer.condition(condition).expand(-1, -1, height, width) for layer in self.layers],
        }

    def step(self, state: dict[str, list[Tensor]], place: int, before: Tensor | None) -> Tensor:
        i, j = divmod(place, self.shape[1])
        if before is not None:
            above, left = divmod(place - 1, self.shape[1])
            reach = self.layers[0].reach
            state["v"][0][:, :, above + reach, left + reach] = before
            state["h"][0][:, :, above, left + reach] = before
        if j == 0:
            self._row(state, i)
        for n, layer in enumerate(self.layers):
            seen = layer.horizontal.weight.shape[3]
            h = state["h"][n][:, :, i, j : j + seen]  # (B, C, seen): starts ``reach`` to the left
            row = F.linear(h.flatten(1), layer.horizontal.weight.flatten(1), layer.horizontal.bias)
            gated = gate(row + state["across"][n][:, :, j] + state["given"][n][:, :, i, j])
            feature = F.linear(gated, layer.out.weight.flatten(1), layer.out.bias)
            if not layer.first:
                feature = feature + h[:, :, -1]
            if n + 1 < len(self.layers):
                state["h"][n + 1][:, :, i, j + self.layers[n + 1].reach] = feature
        return feature

    def _row(self, state: dict[str, list[Tensor]], i: int) -> None:
        """The vertical stack's row ``i``, for which all rows above are known."""
        for n, layer in enumerate(self.layers):
            seen = layer.vertical.weight.shape[2]
            rows = layer.vertical(state["v"][n][:, :, i : i + seen])  # (B, 2C, 1, w): starts ``reach`` above
            state["across"][n] = layer.across(rows)[:, :, 0]
            if n + 1 < len(self.layers):
                r = self.layers[n + 1].reach
                state["v"][n + 1][:, :, i + r, r:-r] = gate(rows[:, :, 0] + state["given"][n][:, :, i])
