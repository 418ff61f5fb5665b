"""Submissions that attack the grading: none gets a point that it did not earn, and the machine is as it was before."""

import shutil
import socket
import tempfile
from pathlib import Path

import psutil
import pytest
from course.grading import classroom
from course.grading.attacks import ATTACKS
from course.grading.classroom import NAME, started_since, submit

from interp_kit.course.grading.grade import grade
from interp_kit.course.grading.landlock import landlock_version

WRONG = {"q1": "def double(x):\n    return 0", "q2": "def mean_of(rows):\n    return 0", "q3": "letter = '?'"}


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """The class of attackers, graded. Beside them one who learnt the subject."""
    place = tmp_path_factory.mktemp("attacks")
    teachers = classroom.assignments(place / "assignments")
    server = socket.create_server(("127.0.0.1", 0))
    for name, code in ATTACKS.items():
        code = code.replace("{places!r}", repr([str(teachers), str(place / "grades"), "/tmp", str(Path.home())]))
        code = code.replace("{port}", str(server.getsockname()[1]))
        submit(place / "submissions", name, WRONG, extra=[code])
    submit(place / "submissions", "learnt it")
    shadow = place / "submissions" / "shadows" / NAME
    submit(place / "submissions", "shadows", WRONG)
    for module in ("json", "torch", "sitecustomize", "usercustomize", "IPython"):
        (shadow / f"{module}.py").write_text(f"open({str(place / 'shadowed')!r}, 'w')")
    (shadow / "secret.json").symlink_to(teachers / "questions" / f"{NAME}.py")
    temporary, before = Path(tempfile.mkdtemp()), psutil.Process().children()
    temporary.chmod(0o711)  # pytest's own folders are closed to other users
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", None)
        patch.setattr("interp_kit.course.grading.submission.CELL_SECONDS", 5.0)
        results = grade(place / "submissions", place / "grades", 1, teachers)
    left = [*temporary.glob("interp_kit-*"), *started_since(before)]
    shutil.rmtree(temporary)
    yield place, {result.student: result for result in results}, left, server
    server.close()


@pytest.mark.parametrize("name", [*ATTACKS, "shadows"])
def test_no_attack_gets_a_point(after, name):
    _, results, *_ = after
    assert [each.points for each in results[name].questions] == [0, 0, 0, None]


def test_the_others_are_graded_all_the_same(after):
    _, results, *_ = after
    assert [each.points for each in results["learnt it"].questions] == [2, 3, 1, None]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fills memory", "it took over 2,048 MB of memory"),
        ("fills the disk", "it wrote over 100 MB"),
        ("prints without end", "it wrote over 100 MB"),
    ],
)
def test_what_goes_beyond_a_limit_is_told(after, name, words):
    _, results, *_ = after
    assert words in results[name].notes


def test_a_fork_bomb_ends_by_its_processes_or_by_their_memory(after):
    _, results, *_ = after
    assert results["forks"].notes[0].startswith(("it started over 64 processes", "it took over 2,048 MB"))


@pytest.mark.skipif(landlock_version() < 6, reason="this system's Landlock does not close everything")
def test_nothing_of_the_teachers_was_read_or_written(after):
    place, results, _, server = after
    assert not (place / "shadowed").exists()
    for folder in (place, *place.rglob("*"), Path("/tmp"), Path.home()):
        assert not (folder / "left-by-a-student").exists(), folder
    assert "the answers" not in str(results["reads"])
    server.settimeout(0)
    with pytest.raises(BlockingIOError):
        server.accept()


def test_nothing_is_left(after):
    _, _, left, _ = after
    assert not any("987.5" in (process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    assert left == []
