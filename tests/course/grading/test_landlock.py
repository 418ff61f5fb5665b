"""A process that closed the machine to itself can do what it needs, and nothing else."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from interp_kit.course.grading.landlock import close_all_but, landlock_version

TRIES = """
import json, os, socket, sys
from pathlib import Path
from interp_kit.course.grading.landlock import close_all_but
work, secret, port, other = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
system = [Path(p) for p in ("/usr", "/lib", "/lib64", "/etc", "/dev", sys.prefix, sys.base_prefix)]
close_all_but(readable=system, writable=[work, Path("/no/such/path")])
def tried(function):
    try: function(); return "done"
    except OSError as error: return type(error).__name__
def child(): 
    if os.system(f"cat {secret} >/dev/null 2>&1"): raise PermissionError
found = {
    "own file": tried(lambda: (work / "mine").write_text("x") and (work / "mine").read_text()),
    "own folder": tried(lambda: (work / "a" / "b").mkdir(parents=True)),
    "library": tried(lambda: __import__("decimal")),
    "read": tried(lambda: open(secret).read()),
    "read by a child": tried(child),
    "write": tried(lambda: open(secret, "a").write("forged")),
    "rename": tried(lambda: os.rename(secret, work / "stolen")),
    "link": tried(lambda: (os.symlink(secret, work / "link"), open(work / "link").read())),
    "list": tried(lambda: os.listdir(Path(secret).parent)),
    "remove": tried(lambda: os.remove(secret)),
    "network": tried(lambda: socket.create_connection(("127.0.0.1", port), 2)),
    "kill": tried(lambda: os.kill(other, 15)),
}
(work / "found.json").write_text(json.dumps(found))
"""

pytestmark = pytest.mark.skipif(landlock_version() == 0, reason="this system has no Landlock")


def test_what_is_closed_stays_closed(tmp_path):
    work, secret = tmp_path / "work", tmp_path / "teacher" / "grades.csv"
    work.mkdir()
    secret.parent.mkdir()
    secret.write_text("the answers")
    other = subprocess.Popen(["sleep", "60"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, "-c", TRIES, work, secret, str(port), str(other.pid)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    found = json.loads((work / "found.json").read_text())
    version, refused = landlock_version(), "PermissionError"
    assert {name: found.pop(name) for name in ("own file", "own folder", "library")} == dict.fromkeys(
        ("own file", "own folder", "library"), "done"
    )
    expected = dict.fromkeys(found, refused)
    expected["network"] = refused if version >= 4 else "done"
    expected["kill"] = refused if version >= 6 else "done"
    expected["rename"] = found["rename"]  # as a move between two folders, which the first version never allows
    assert found["rename"] in (refused, "OSError") and found == expected
    assert secret.read_text() == "the answers" and not (work / "stolen").exists()
    assert other.poll() is None or version < 6
    other.send_signal(signal.SIGKILL)
    other.wait()


def test_a_system_without_it_says_so(monkeypatch):
    monkeypatch.setattr("interp_kit.course.grading.landlock.CREATE_RULESET", 4_000)
    assert landlock_version() == 0
    with pytest.raises(OSError, match="Landlock: Function not implemented"):
        close_all_but(readable=[Path("/usr")], writable=[])
