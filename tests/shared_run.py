"""A training run for `accelerate launch`: python shared_run.py FOLDER ACTIVATION PARALLEL [steps before it stops]."""

import os
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from tiny import tiny_model

import interp_kit as ik
from interp_kit.transcoders.training import trainer

TEXTS = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state the capital of Ohio is a city ."] * 20


def run(folder, activation, parallel, killed_at=None):
    """Chooses features in float32: in bfloat16 two can tie for the last place, and feature-parallel keeps both."""
    if killed_at:
        trainer.SAVE_SECONDS = 0
        step = trainer.Trainer.step
        trainer.Trainer.step = lambda self, batch: step(self, batch) if batch.step < killed_at else sys.exit()
    with patch.object(trainer, "multiplies_bfloat16", lambda device: False):
        return ik.train_transcoder(
            tiny_model(), TEXTS, n_features=48, activation=activation, k=5, steps=60, batch=64, dtype=torch.float32,
            parallel=parallel, checkpoint=folder / "checkpoint", memory=400 * 2 * 4 * 16 * 4,
        )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, activation, parallel, *killed_at = sys.argv[1:]
    result = run(Path(folder), activation, parallel, *map(int, killed_at))
    rank = int(os.environ.get("RANK", 0))
    (Path(folder) / f"process-{rank}-of-{os.environ.get('WORLD_SIZE', 1)}").touch()
    if rank == 0:
        result.transcoder.save(Path(folder) / "transcoder")
        result.history.to_csv(Path(folder) / "history.csv", index=False)
