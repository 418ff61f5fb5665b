"""What ships: found in a clone or in an installed wheel, or fetched once from an archive of the repository."""

import functools
import http.server
import os
import threading
import zipfile
from types import SimpleNamespace

import pytest

import interp_kit as ik
from interp_kit.storage import shipped


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """As away from a clone: nothing ships but what is put there, and the cache is empty."""
    monkeypatch.setenv("INTERP_KIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("INTERP_KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def archive_of(folder, names, root="interp_kit-main/"):
    path = folder / "clone.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(root + name, name.encode())
    return path


BOTH = ["README.md", "data/smollm2-transcoder/config.yaml", "data/smollm2-features/windows.parquet", "data/pocket/x"]


@pytest.mark.parametrize("root", ["interp_kit-main/", ""])
def test_fetched_from_a_file_only_its_own_folders(installed, root):
    folders = shipped.fetch("smollm2", str(archive_of(installed, BOTH, root)))
    found = {path.relative_to(installed / "cache").as_posix() for path in installed.rglob("cache/**/*.*")}
    assert found == {"data/smollm2-transcoder/config.yaml", "data/smollm2-features/windows.parquet"}
    assert shipped.shipped_folder("smollm2-transcoder") == folders[0]


def test_fetched_from_an_address(installed):
    archive_of(installed, BOTH)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=installed)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shipped.fetch("smollm2", f"http://127.0.0.1:{server.server_address[1]}/clone.zip")
        server.shutdown()
    assert (shipped.shipped_folder("smollm2-features") / "windows.parquet").read_text().endswith("windows.parquet")


@pytest.mark.parametrize("entry", ["data/smollm2-features/../../evil", "data/smollm2-features/a/b", "/data/x"])
def test_an_entry_that_leads_elsewhere_is_passed_over(installed, entry):
    shipped.fetch("smollm2", str(archive_of(installed, [*BOTH, entry])))
    assert not list(installed.rglob("*evil*")) and not list(installed.rglob("b"))


def test_an_archive_of_something_else_says_so(installed):
    with pytest.raises(ValueError, match="no folder data/smollm2-transcoder"):
        shipped.fetch("smollm2", str(archive_of(installed, ["README.md"])))
    (installed / "no.zip").write_text("no")
    with pytest.raises(ValueError, match="not a zip"):
        shipped.fetch("smollm2", str(installed / "no.zip"))
    with pytest.raises(ValueError, match="pocket comes with"):
        shipped.fetch("pocket", "x.zip")


def changed(path, mark, at, new):
    """The archive with some bytes behind the last `mark` exchanged."""
    content = path.read_bytes()
    start = content.rindex(mark) + at
    path.write_bytes(content[:start] + new + content[start + len(new) :])


def test_an_archive_that_is_damaged_inside_leaves_nothing(installed):
    path = archive_of(installed, BOTH[:3])
    changed(path, b"PK\x01\x02", 8, b"\x01")  # the directory says that the last one has a password
    with pytest.raises(ValueError, match=r"clone.zip is damaged or not a zip archive \(File .* is encrypted"):
        shipped.fetch("smollm2", str(path))
    path = archive_of(installed, BOTH[:3])
    changed(path, b"data/smollm2-features/windows.parquetdata", 40, b"x")
    with pytest.raises(ValueError, match=r"clone.zip is damaged or not a zip archive \(Bad CRC-32"):
        shipped.fetch("smollm2", str(path))
    assert not list(installed.rglob("smollm2-features"))


def test_an_archive_that_unfolds_to_more_than_the_disk_holds(installed):
    path = archive_of(installed, BOTH[:2])
    changed(path, b"PK\x01\x02", 24, b"\xfe\xff\xff\xff")  # the size
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="needs 4,294,967,294 bytes"):
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4 * 10**9))
        shipped.fetch("smollm2", str(path))
    os.mkfifo(installed / "pipe.zip")
    with pytest.raises(ValueError, match="pipe.zip' is a pipe"):
        shipped.fetch("smollm2", str(installed / "pipe.zip"))


def test_what_is_missing_says_how_to_get_it(installed):
    for load in (ik.load_transcoder, ik.load_features, ik.load_labels):
        with pytest.raises(FileNotFoundError, match="python -m interp_kit fetch smollm2"):
            load("smollm2")
    with pytest.raises(FileNotFoundError, match="INTERP_KIT_DATA") as caught:
        ik.load_model("pocket")
    assert "fetch" not in str(caught.value)
