"""MA-CNN's distance and diversity losses, cell by cell."""

import numpy as np


def distance(maps):
    """Dis of one image's maps [H, W, N], coordinates as shares of the sides."""
    height, width, parts = maps.shape
    total = 0.0
    for i in range(parts):
        t = np.unravel_index(np.argmax(maps[:, :, i]), (height, width))
        for y in range(height):
            for x in range(width):
                squared = ((y - t[0]) / height) ** 2 + ((x - t[1]) / width) ** 2
                total += float(maps[y, x, i]) * squared
    return total


def diversity(maps, margin):
    """Div of one image's maps [H, W, N]."""
    height, width, parts = maps.shape
    total = 0.0
    for i in range(parts):
        for y in range(height):
            for x in range(width):
                other = max(float(maps[y, x, k]) for k in range(parts) if k != i)
                total += float(maps[y, x, i]) * (other - margin)
    return total
