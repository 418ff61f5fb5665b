"""What ships with the kit, by name, and the folder it lies in."""

import os
from pathlib import Path

# The folders of data/ by the name that a reader loads them with: `load_transcoder("pocket")`.
TRANSCODERS = {"pocket": "pocket-transcoder", "smollm2": "smollm2-transcoder"}
FEATURES = {"pocket": "pocket-features", "smollm2": "smollm2-features"}


def data_folder() -> Path:
    """The shipped `data/` folder of the clone, or the one named by the environment variable INTERP_KIT_DATA."""
    named = os.environ.get("INTERP_KIT_DATA")
    return Path(named).expanduser() if named else Path(__file__).parents[2] / "data"
