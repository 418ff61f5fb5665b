"""Two processes under `accelerate launch` end where one does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from shared_run import run

import interp_kit as ik

SCRIPT = Path(__file__).parents[2] / "shared_run.py"


def launched(folder, *arguments):
    options = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    with socket.socket() as free:  # accelerate before 1.7 chooses none itself
        free.bind(("127.0.0.1", 0))
        options.append(f"--main_process_port={free.getsockname()[1]}")
    launch = [sys.executable, "-m", "accelerate.commands.launch", *options]
    command = [*launch, str(SCRIPT), str(folder), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("activation", "parallel"),
    [("topk", "data"), ("batchtopk", "data"), ("jumprelu", "data"), ("topk", "features"), ("batchtopk", "features"),
     ("jumprelu", "features")],
)  # fmt: skip
def test_two_processes_give_the_result_of_one(tmp_path, activation, parallel):
    alone = run(tmp_path / "alone", activation, parallel)
    launched(tmp_path, activation, parallel)
    assert {path.name for path in tmp_path.glob("process-*")} == {"process-0-of-2", "process-1-of-2"}
    together = ik.load_transcoder(tmp_path / "transcoder")
    for name, weights in alone.transcoder.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], weights, rtol=2e-3, atol=2e-3)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv"), alone.history, rtol=2e-3)


def test_two_killed_processes_go_on(tmp_path):
    launched(tmp_path, "topk", "features", "33")
    assert sorted(p.name for p in (tmp_path / "checkpoint").iterdir()) == ["0-of-2", "1-of-2"]
    launched(tmp_path, "topk", "features")
    whole = run(tmp_path / "alone", "topk", "features")
    together = ik.load_transcoder(tmp_path / "transcoder")
    torch.testing.assert_close(together.W_enc, whole.transcoder.W_enc, rtol=2e-3, atol=2e-3)


def test_features_that_cannot_be_shared_equally_are_refused(monkeypatch):
    from interp_kit.transcoders.training.parallel import Processes

    processes = Processes("features", torch.device("cpu"))
    processes.size, processes.by_features = 5, True
    with pytest.raises(ValueError, match="48 features a layer cannot be shared equally by 5"):
        processes.features(48)
