"""Names written beside the points of a figure, instead of a legend of twenty: placed so that none covers another."""

from collections.abc import Sequence
from math import cos, hypot, pi, sin

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text

from vqlib.reporting.style import BEHIND

DISTANCES = (7, 11, 16, 22, 29, 37, 46, 56, 67, 80, 95)  # points of type, from a point to its name
DIRECTIONS = 24
LEADER = 12  # from this distance on a line joins the two


def label_points(
    ax: Axes, names: Sequence[tuple[str, float, float, str]], obstacles: np.ndarray, fontsize: float = 6.5
) -> None:
    """Write every name near its point, greedily: the nearest place where no other text, point or line lies.

    Args:
        names: (text, x, y, colour) in data coordinates.
        obstacles: (N, 2) points in data coordinates that are not to be covered: samples of curves, other points.

    The figure's layout must be final, since distances on paper count; it is drawn once here, without rendering.
    """
    figure = ax.figure
    figure.draw_without_rendering()
    renderer = figure._get_renderer()
    scale = figure.dpi / 72
    frame = ax.get_window_extent(renderer)
    fixed = [text.get_window_extent(renderer) for text in ax.texts if text.get_text()]
    boxes = [(box.x0, box.y0, box.x1, box.y1) for box in fixed]
    points = ax.transData.transform(np.asarray(obstacles, dtype=float).reshape(-1, 2))
    anchors = ax.transData.transform([(x, y) for _, x, y, _ in names]) if names else points
    for name, x, y, colour in sorted(names, key=lambda one: (-one[2], one[1], one[0])):
        centre = ax.transData.transform((x, y))
        probe = Text(0, 0, name, fontsize=fontsize, figure=figure)
        size = probe.get_window_extent(renderer)
        width, height = size.width + 2 * scale, size.height + scale
        best = None
        for distance in DISTANCES:
            for turn in range(DIRECTIONS):
                angle = 2 * pi * turn / DIRECTIONS
                across, up = cos(angle), sin(angle)
                middle = (centre[0] + across * (distance * scale + width / 2),
                          centre[1] + up * (distance * scale + height / 2))  # fmt: skip
                box = (middle[0] - width / 2, middle[1] - height / 2, middle[0] + width / 2, middle[1] + height / 2)
                inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1] and box[3] <= frame.y1
                if not inside or any(_overlap(box, other) for other in boxes):
                    continue
                covered = int(((points >= box[:2]) & (points <= box[2:])).all(axis=1).sum())
                nearest = np.hypot(*(anchors - middle).T).min()
                confusing = nearest < np.hypot(*(centre - middle)) - 1  # the point of another name is nearer
                cost = distance + 12 * covered + 12 * confusing
                if best is None or cost < best[0]:
                    best = (cost, box, middle)
        if best is None:  # no room at all: on the point, and the test of figures says so
            best = (0, (*centre, *centre), centre)
        _, box, middle = best
        boxes.append(box)
        _write(ax, name, (x, y), middle, centre, colour, fontsize, scale)


def _write(ax: Axes, name: str, point, middle, centre, colour: str, fontsize: float, scale: float) -> None:
    offset = ((middle[0] - centre[0]) / scale, (middle[1] - centre[1]) / scale)
    far = hypot(*offset) > LEADER
    ax.annotate(
        name, point, offset, textcoords="offset points", ha="center", va="center", fontsize=fontsize, color=colour,
        arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": colour, "alpha": 0.6, "shrinkA": 0, "shrinkB": 2}
        if far else None, zorder=5, bbox=BEHIND,
    )  # fmt: skip


def _overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
