"""The Language Interpretability Tool on a model of the kit, in a process and an environment of its own."""

from .server import LitServer, open_lit

__all__ = ["LitServer", "open_lit"]
