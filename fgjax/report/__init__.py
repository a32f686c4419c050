"""report.html: what a run found, in one file that works without a network."""

from fgjax.report.run import write

__all__ = ["write"]
