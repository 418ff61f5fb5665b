"""The other ways of looking at a model, beside attribution graphs."""

from .lit import LitServer, open_lit

__all__ = ["LitServer", "open_lit"]
