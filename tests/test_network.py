"""Nothing reaches out unless asked: whatever a reader does first opens no connection that leaves this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WATCH = Path(__file__).parent / "no_network"
ROOT = Path(__file__).parent.parent


def run(code, folder, *arguments):
    """The attempts to reach out of a process that runs `code`."""
    log = folder / "network.log"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(WATCH), str(ROOT)]), "NETWORK_LOG": str(log)}
    environment.pop("HF_HUB_OFFLINE")  # as a reader has it
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done, log.read_text() if log.exists() else ""


@pytest.mark.parametrize(
    "code",
    [
        "import interp_kit as ik; [getattr(ik, name) for name in dir(ik)]",
        "from interp_kit.__main__ import main; import sys; sys.argv = ['interp_kit', 'demo', 'pocket']; main()",
        "from interp_kit.__main__ import main; import sys; sys.argv = ['interp_kit', 'doctor']; main()",
        "import interp_kit as ik; ik.load_model('pocket'); ik.load_features('pocket'); ik.load_labels('pocket')",
    ],
)
def test_what_a_reader_does_first_stays_on_this_machine(code, tmp_path):
    done, attempts = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not attempts


def test_an_attempt_is_seen_and_a_model_that_is_not_here_is_one(tmp_path):
    done, attempts = run("import interp_kit as ik; ik.load_model('somebody/a-model')", tmp_path)
    assert done.returncode != 0 and "huggingface" in attempts
    assert "cannot be reached" in done.stderr


def test_a_connection_within_the_machine_is_none(tmp_path):
    code = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
    socket.create_connection(("localhost", server.getsockname()[1])).close()
"""
    done, attempts = run(code, tmp_path)
    assert done.returncode == 0 and not attempts, done.stderr
