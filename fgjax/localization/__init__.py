"""Pure functions on maps and boxes."""

from fgjax.localization.regions import anchors, crop_and_resize, largest_region, nms, pairwise_iou

__all__ = ["anchors", "crop_and_resize", "largest_region", "nms", "pairwise_iou"]
