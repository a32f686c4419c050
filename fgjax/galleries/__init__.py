"""Images to search among, kept on disk: they are added, removed and searched at the same time."""

from fgjax.galleries.store import Entry, Snapshot, Store

__all__ = ["Entry", "Snapshot", "Store"]
