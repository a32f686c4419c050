"""A page and a JSON API for a finished run: drop a photograph, see the answer."""

from fgjax.serve.answers import Answers, Gallery
from fgjax.serve.app import Limits, create_app

__all__ = ["Answers", "Gallery", "Limits", "create_app"]
