"""Worlds with known truth: fact tables turned into sentences whose tokens know their concepts."""

from pathlib import Path

from ..storage.shipped import data_folder
from .geography import Geography
from .sentences import Sentence, Slot, fill, token_concepts

WORLDS = {"geography": Geography}


def load_world(name: str = "geography", folder: str | Path | None = None):
    """The world `name`, from its tables in `data/worlds/<name>` or in `folder` (your own tables, same columns).

    Raises ValueError for an unknown name.
    """
    if name not in WORLDS:
        raise ValueError(f"unknown world {name!r}; known worlds: {', '.join(WORLDS)}")
    return WORLDS[name](Path(folder) if folder else data_folder() / "worlds" / name)


__all__ = ["Geography", "Sentence", "Slot", "fill", "load_world", "token_concepts"]
