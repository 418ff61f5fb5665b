"""Files and folders are written whole or not at all, and what is not ours stays."""

import errno
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from interp_kit.storage import atomic, folders
from interp_kit.storage.atomic import always, atomic_file, cache_entry
from interp_kit.storage.folders import LIST, opened_folder, saved_folder


def save(folder, **files):
    with saved_folder(folder) as stage:
        for name, text in files.items():
            (stage / name).write_text(text)


def held(folder):
    """What a person sees in a folder."""
    return {p.name: p.read_text() for p in folder.iterdir() if p.name != LIST}


# ---------------------------------------------------------------- one file


def test_a_file_is_written_with_the_permissions_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "new.txt") as temporary:
            temporary.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.txt").stat().st_mode) == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["new.txt"]


def test_a_file_that_is_replaced_keeps_its_permissions_and_its_link(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "real.txt", tmp_path / "link.txt"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    with atomic_file(link, always) as temporary:
        temporary.write_text("new")
    assert link.is_symlink() and target.read_text() == "new" and stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("there", ["essay", "folder", "link to essay"])
def test_what_is_there_is_not_replaced(tmp_path, there):
    essay, target = tmp_path / "essay.ipynb", tmp_path / "target"
    essay.write_text("mine")
    if there == "folder":
        target.mkdir()
    else:
        target = essay if there == "essay" else target
        target.exists() or target.symlink_to(essay)
    with pytest.raises(FileExistsError, match="left as it is"), atomic_file(target) as temporary:
        temporary.write_text("new")
    assert essay.read_text() == "mine"


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(FileExistsError, match="left as it is"), atomic_file(tmp_path / "a") as temporary:
        temporary.write_text("new")
        (tmp_path / "a").write_text("mine")
    assert held(tmp_path) == {"a": "mine"}


def test_long_names_are_written(tmp_path):
    name = "n" * 250
    with atomic_file(tmp_path / name) as temporary:
        temporary.write_text("x")
    save(tmp_path / "f" / name, a="1")
    assert (tmp_path / name).exists() and held(tmp_path / "f" / name) == {"a": "1"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("save_to", [atomic_file, cache_entry, saved_folder])
def test_a_disk_that_fails_is_named_and_leaves_what_was_there(tmp_path, save_to, code):
    if save_to is saved_folder:
        save(tmp_path / "a", old="old")
        before = held(tmp_path / "a")
    with pytest.raises(OSError, match=r"a' could not be saved: .*unchanged"), save_to(tmp_path / "a"):
        raise OSError(code, os.strerror(code))
    if save_to is saved_folder:
        assert held(tmp_path / "a") == before
    else:
        assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- folders


def test_a_folder_is_saved_and_saved_again(tmp_path):
    folder = tmp_path / "deep" / "er" / "mine"
    save(folder, a="1", b="2")
    (folder / "notes.md").write_text("mine")
    save(folder, b="3", c="4")
    assert held(folder) == {"b": "3", "c": "4", "notes.md": "mine"}
    with opened_folder(folder) as found:
        assert (found / "b").read_text() == "3"


def test_a_folder_that_is_not_ours_is_refused_and_left(tmp_path):
    (tmp_path / "essay.ipynb").write_text("mine")
    with pytest.raises(FileExistsError, match="essay.ipynb"):
        save(tmp_path, a="1")
    assert held(tmp_path) == {"essay.ipynb": "mine"}


@pytest.mark.parametrize("name", [".git", "sub", "link"])
def test_any_entry_makes_a_folder_somebody_elses(tmp_path, name):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / name
    target.symlink_to(tmp_path / "nowhere") if name == "link" else target.mkdir()
    with pytest.raises(FileExistsError, match=name):
        save(tmp_path / "there", a="1")
    assert [p.name for p in (tmp_path / "there").iterdir()] == [name]


def test_a_file_of_theirs_with_the_name_of_a_new_one_is_left(tmp_path):
    save(tmp_path, a="1")
    (tmp_path / "b").write_text("mine")
    with pytest.raises(FileExistsError, match="b' is there and was not saved"):
        save(tmp_path, a="2", b="2")
    assert held(tmp_path) == {"a": "1", "b": "mine"}


def test_a_file_of_ours_that_was_edited_is_left(tmp_path):
    save(tmp_path, a="1")
    (tmp_path / "a").write_text("1, and what I think of it")
    with pytest.raises(FileExistsError, match="a' was changed since"):
        save(tmp_path, c="2")
    assert held(tmp_path) == {"a": "1, and what I think of it"}


def test_a_pipe_in_the_place_of_a_file_of_ours_is_left(tmp_path):
    save(tmp_path, a="1")
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    with pytest.raises(FileExistsError, match="a' was changed since"):
        save(tmp_path, a="2")


def test_a_list_that_is_a_pipe_is_none(tmp_path):
    save(tmp_path, a="1")
    (tmp_path / LIST).unlink()
    os.mkfifo(tmp_path / LIST)
    with pytest.raises(FileExistsError, match="a' and was not saved by interp_kit"):
        save(tmp_path, a="2")


def test_a_list_that_names_files_elsewhere_is_not_believed(tmp_path):
    (tmp_path / "essay").write_text("mine")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / LIST).write_text('{"files": {"../essay": "00"}}')
    (tmp_path / "f" / "x").write_text("x")
    with pytest.raises(FileExistsError, match="'x'"):
        save(tmp_path / "f", a="1")
    assert (tmp_path / "essay").read_text() == "mine"


def test_the_working_folder_and_a_link_are_saved_into_in_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = os.stat(".").st_ino
    save(".", a="1")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(FileExistsError, match="link"):
        save(tmp_path, a="1", link="x")
    save("link", a="2")
    assert os.stat(".").st_ino == here and (tmp_path / "link").is_symlink() and held(tmp_path / "real") == {"a": "2"}


def test_a_folder_in_the_place_of_a_file_and_the_other_way_round_are_refused(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        save(tmp_path / "a", x="1")
    with pytest.raises(OSError, match="could not be saved"):
        save(tmp_path / "a" / "b", x="1")
    assert (tmp_path / "a").read_text() == "mine"


def test_what_fails_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), saved_folder(tmp_path / "new" / "er") as stage:
        (stage / "a").write_text(str(1 / 0))
    assert not (tmp_path / "new").exists()


def test_files_have_the_permissions_of_new_ones(tmp_path):
    before = os.umask(0o002)
    try:
        with saved_folder(tmp_path / "f") as stage:
            os.close(os.open(stage / "a", os.O_CREAT | os.O_WRONLY, 0o600))  # as some writers make them
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f" / "a").stat().st_mode) == 0o664
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o775


# ---------------------------------------------------------------- kills

KILLED = """
import os, signal, sys
from pathlib import Path
from interp_kit.storage import folders
path, at = Path(sys.argv[1]), int(sys.argv[2])
steps = iter(range(1000))

def one_step(function):
    def stepped(*args, **options):
        if next(steps) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return stepped

for name in ("rename", "replace", "unlink", "mkdir", "write_text", "rmdir"):
    setattr(Path, name, one_step(getattr(Path, name)))
with folders.saved_folder(path) as stage:
    for name in "bcd":
        (stage / name).write_text("new")
"""


@pytest.mark.parametrize("first", [False, True])
def test_killed_at_any_step_a_folder_holds_the_old_save_or_the_new_one(tmp_path, first):
    """Every call that changes the disk, in turn, is the last one of a process."""
    old, new, endings = {"a": "old", "b": "old"}, dict.fromkeys("bcd", "new"), []
    for at in range(40):
        folder = tmp_path / f"{at}"
        if not first:
            save(folder, **old)
            (folder / "notes").write_text("mine")
        ended = subprocess.run([sys.executable, "-c", KILLED, folder, str(at)]).returncode
        if folder.exists():
            with opened_folder(folder):
                found = {name: text for name, text in visible(folder).items() if name != "notes"}
            assert found in ([{}, new] if first else [old, new])
            endings.append(found == new)
        save(folder, **new)
        assert {p.name for p in folder.iterdir()} == {*new, LIST, *([] if first else ["notes"])}
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert ended == 0 and at > 8 and endings == sorted(endings) and not all(endings[:-1])


def visible(folder):
    return {p.name: p.read_text() for p in folder.iterdir() if not p.name.startswith(atomic.PREFIX)}


def test_a_file_left_by_a_killed_process_goes_and_one_in_use_stays(tmp_path):
    left = tmp_path / f"{atomic.PREFIX}tmp-0123abcd"
    left.write_text("half")
    similar = tmp_path / f"{atomic.PREFIX}tmp-mine"
    similar.write_text("mine")
    with atomic_file(tmp_path / "a") as in_use:
        in_use.write_text("1")
        with atomic_file(tmp_path / "b") as temporary:
            temporary.write_text("2")
        assert in_use.exists()
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b", similar.name}


def test_two_who_save_to_one_place_come_one_after_the_other(tmp_path):
    def work(n):
        save(tmp_path / "f", **{f"file{i}": f"{n}" for i in range(20)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert len(set(held(tmp_path / "f").values())) == 1


def test_a_save_that_cannot_be_finished_is_no_save(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(folders, "_finish", lambda folder: None)
        save(tmp_path / "f", a="1")
    monkeypatch.setattr(folders.Path, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no")))
    with pytest.raises(PermissionError, match="could not be"), opened_folder(tmp_path / "f"):
        pass
    monkeypatch.undo()
    with opened_folder(tmp_path / "f"):
        assert held(tmp_path / "f") == {"a": "1"}
