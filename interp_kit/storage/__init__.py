"""Files on disk: written whole or not at all, checkpoints of a run, and where what ships with the kit lies."""
