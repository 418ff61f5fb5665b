"""Worlds with known truth: fact tables turned into sentences whose tokens know their concepts."""

from pathlib import Path

from ..storage.shipped import data_folder
from .geography import Geography, Question
from .sentences import Sentence, Slot, fill, token_concepts

WORLDS = {"geography": Geography}


def load_world(name: str = "geography", folder: str | Path | None = None) -> Geography:
    """The world `name`, from its tables in `data/worlds/<name>` or, with your own facts, in `folder`.

    The tables of "geography" are three CSV files. No cell may be empty, and a name means one thing:

        states.csv     a row a state: place, and a column for each relation with its answer (capital, time zone, ...)
        countries.csv  a row a country, likewise; the relations may be others
        cities.csv     a row a city: city, and place, a state or country of the others; further columns are not read

    Both kinds of places need two relations or more, one of them capital, abbreviation or country code: sentences also
    tell these in reverse ("Austin is the capital of Texas"). Some fifty pairs of city and relation are enough for about
    one in twelve to be held out.

    Raises ValueError for an unknown name, and for tables that are not so, saying what is wrong; FileNotFoundError for
    a missing one or a missing folder.

    >>> world = ik.load_world("geography")
    >>> mine = ik.load_world("geography", folder="my-tables")
    """
    if not isinstance(name, str) or name not in WORLDS:
        raise ValueError(f"unknown world {name!r}; known worlds: {', '.join(WORLDS)}")
    place = Path(folder) if folder else data_folder() / "worlds" / name
    if not place.is_dir():
        raise FileNotFoundError(f"there is no folder {str(place)!r}, which should hold the tables of {name!r}")
    return WORLDS[name](place)


__all__ = ["Geography", "Question", "Sentence", "Slot", "fill", "load_world", "token_concepts"]
