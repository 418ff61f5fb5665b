"""What a student's process may not do, it cannot: each attack ends by its limit, and the machine is as it was."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from interp_kit.course.grading.sandbox import Limits, as_user, run_limited, student_user

SOON = Limits(seconds=10, memory=300 * 2**20, processes=20, written=2**20)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def run(folder, program, limits=SOON, **options):
    return run_limited([sys.executable, "-I", "-c", program], folder, limits, **options)


def test_what_ends_by_itself_is_left_to(folder):
    ended = run(folder, "import sys; open('answer.txt', 'w').write('Austin'); sys.exit(3)")
    assert (ended.code, ended.stopped) == (3, "") and (folder / "answer.txt").read_text() == "Austin"
    assert 0 <= ended.memory < SOON.memory


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("while True: pass", "it took over 1 seconds"),
        (
            "import signal, time\nfor s in (2, 15, 1): signal.signal(s, signal.SIG_IGN)\ntime.sleep(99)",
            "it took over 1 s",
        ),
    ],
)
def test_an_endless_loop(folder, program, words):
    ended = run(folder, program, Limits(seconds=1))
    assert ended.code is None and ended.stopped.startswith(words) and 1 <= ended.seconds < 8


def test_filling_memory(folder):
    ended = run(folder, "held = []\nwhile True: held.append(bytearray(10**7))")
    assert ended.stopped == "it took over 300 MB of memory" and SOON.memory < ended.memory < 3 * SOON.memory


def test_forking_without_end():
    before = len(psutil.pids())
    program = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        ended = run(Path(place), program, Limits(seconds=3, processes=20), user=student_user())
    assert ended.stopped in ("it started over 20 processes", "it took over 3 seconds")
    assert len(psutil.pids()) < before + 10


@pytest.mark.parametrize("how", ["one file", "many files"])
def test_filling_the_disk(folder, how):
    one = "f = open('big', 'wb')\nwhile True: f.write(bytes(10**5)); f.flush()"
    many = "i = 0\nwhile True: open(f'{i}', 'wb').write(bytes(10**5)); i += 1"
    ended = run(folder, one if how == "one file" else many)
    assert ended.stopped == "it wrote over 1 MB" or ended.code != 0
    assert (
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 300 * SOON.written
    )  # what fits between two looks


def test_a_process_that_leaves_its_group_is_stopped_too(folder):
    program = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("pid", "w").write(str(os.getpid()))
        time.sleep(100)
    os._exit(0)
while not os.path.exists("pid") or not open("pid").read(): time.sleep(0.01)
"""
    assert run(folder, program).code == 0
    assert not psutil.pid_exists(int((folder / "pid").read_text()))


def test_what_was_running_before_goes_on(folder):
    other = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")
    try:
        run(folder, "pass")
        assert psutil.Process(other).status() != psutil.STATUS_ZOMBIE
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)


def test_the_teachers_keys_are_not_passed_on(folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    run(folder, "import os, json; json.dump(dict(os.environ), open('seen', 'w'))", variables={"MINE": "1"})
    seen = (folder / "seen").read_text()
    assert "secret" not in seen and '"MINE": "1"' in seen


def test_what_it_prints_goes_where_it_should(folder, tmp_path):
    with open(tmp_path / "out", "wb") as file:
        run(folder, "print('Austin')", output=file.fileno())
    assert (tmp_path / "out").read_text() == "Austin\n"


@pytest.mark.skipif(student_user() is None, reason="only root can become another")
def test_for_root_it_is_another_user_and_leaves_nothing_behind(tmp_path):
    user = student_user()
    program = f"""
import os
try: open({str(tmp_path / "mine")!r}, "w")
except PermissionError: open("refused", "w").write(str(os.getuid()))
for place in ("/tmp", "/dev/shm"): open(place + "/left-by-a-student", "w").write("x")
try: os.setuid(0); open("root", "w")
except PermissionError: pass
"""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        assert run(folder, program, user=user).code == 0
        assert (folder / "refused").read_text() == str(user) and not (folder / "root").exists()
    assert not Path("/tmp", "left-by-a-student").exists() and not Path("/dev/shm", "left-by-a-student").exists()


def test_nobody_else_becomes_another_user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert student_user() is None and as_user(None, sys.executable) == []


def test_a_program_that_others_cannot_reach_needs_landlock(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir(mode=0o700)
    program = str(tmp_path / "closed" / "python")
    assert "--inh-caps=-all,+dac_read_search" in as_user(61_000, program)
    assert "--inh-caps=-all" in as_user(61_000, "/bin/sh")
    monkeypatch.setattr("interp_kit.course.grading.sandbox.landlock_version", lambda: 0)
    with pytest.raises(PermissionError, match="other users cannot reach .*closed/python.* /opt/course"):
        as_user(61_000, program)


def test_a_command_that_there_is_not(folder):
    with pytest.raises(OSError, match="no_such_program"):
        run_limited(["no_such_program"], folder)


def test_it_is_quick(folder):
    start = time.process_time()
    run(folder, "import time; time.sleep(0.5)")
    assert time.process_time() - start < 0.5  # looking on does not take the time of what is looked at
