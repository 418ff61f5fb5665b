import ctypes
import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

import interp_kit as ik
from interp_kit import hardware
from interp_kit.hardware import bytes_of, check_memory, free_memory, one_core_pool, total_memory, usable_cores


@pytest.mark.parametrize(("memory", "wanted"), [("2GB", 2e9), ("1.5 mb", 1.5e6), (5e5, 5e5), ("800", 800), (7, 7)])
def test_amounts_of_memory(memory, wanted):
    assert bytes_of(memory) == wanted


@pytest.mark.parametrize("memory", ["lots", "GB", "-1GB", 0, "2 gigs", "", "nan", float("nan")])
def test_what_is_no_amount_of_memory(memory):
    with pytest.raises(ValueError, match="expected a number of bytes"):
        bytes_of(memory)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc, which alone keeps what is freed")
def test_what_was_freed_goes_back_before_much_is_taken():
    small = [b"1" * 100_000 for _ in range(2000)]
    small = small[-1:]  # the last one stays at the heap's end, so glibc gives nothing back by itself
    before = psutil.Process().memory_info().rss
    check_memory(1, "a number")
    assert psutil.Process().memory_info().rss > before - 50e6
    check_memory(60e6, "many numbers")
    assert psutil.Process().memory_info().rss < before - 150e6


def test_more_memory_than_there_is_is_refused_by_name():
    assert 0 < bytes_of(None) <= psutil.virtual_memory().total
    check_memory(1, "a number")
    with pytest.raises(MemoryError, match="a graph of graphs needs about 1,000,000,000,000 TB"):
        check_memory(1e24, "a graph of graphs")


@pytest.mark.parametrize(
    ("cores", "environment", "threads"), [(1, None, 1), (2, None, 2), (3, None, 3), (64, None, 3), (1, "3", 3)]
)
def test_a_model_in_a_small_container_is_not_computed_by_the_threads_of_a_large_host(
    cores, environment, threads, monkeypatch
):
    before = torch.get_num_threads()
    monkeypatch.setattr(hardware, "usable_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    torch.set_num_threads(3)
    try:
        ik.load_model("pocket")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_each_worker_has_one_core_and_torch_keeps_its_setting_outside():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        pool = one_core_pool(3)
        assert list(pool.map(lambda _: torch.get_num_threads(), range(12))) == [1] * 12
        assert torch.get_num_threads() == 2
        pool.shutdown()
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------------- control groups, in a folder that stands for "/"

GB = 10**9
HOST = SimpleNamespace(total=16 * GB, available=8 * GB)


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: HOST)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)


def fake_root(folder: Path, groups: str, **files: object) -> Path:
    """`groups`: what /proc/self/cgroup says. files: what lies under /sys/fs/cgroup, "/" as "__"."""
    contents = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{name}": str(c) for name, c in files.items()}
    for name, content in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def version_2(place: str = "", limit: object = "max", current: object = 0, inactive: int = 0) -> dict[str, object]:
    stat = f"anon 7\ninactive_file {inactive}\nactive_file 9\n"
    return {f"{place}memory.max": limit, f"{place}memory.current": current, f"{place}memory.stat": stat}


def version_1(place: str, limit: object, usage: object = 0, inactive: int = 0) -> dict[str, object]:
    stat = f"inactive_file 1\ntotal_inactive_file {inactive}\n"
    return {
        f"{place}memory.limit_in_bytes": limit, f"{place}memory.usage_in_bytes": usage, f"{place}memory.stat": stat,
    }  # fmt: skip


UNLIMITED = 9223372036854771712  # of version 1
V1 = "12:cpu,cpuacct:/job\n4:memory:/job\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("groups", "files", "free", "total"),
    [
        ("0::/\n", version_2("", 2 * GB, GB, GB // 2), 1.5 * GB, 2 * GB),
        ("0::/\n", version_2("", "2000000000\n", "1500000000\n"), GB // 2, 2 * GB),
        ("0::/\n", version_2("", "max"), 8 * GB, 16 * GB),
        ("0::/a/b\n", version_2("a__b__", "max") | version_2("a__", 3 * GB, GB), 2 * GB, 3 * GB),
        ("0::/a/b\n", version_2("a__b__", 5 * GB, GB) | version_2("a__", 6 * GB, 5 * GB), GB, 5 * GB),
        ("0::/of/the/host\n", version_2("", 2 * GB), 2 * GB, 2 * GB),  # the container sees its group as the top
        ("0::/../../b\n", version_2("", 2 * GB) | version_2("b__", 1), 2 * GB, 2 * GB),
        ("0::/a:b c\n", version_2("a:b c__", GB), GB, GB),  # a name may hold colons and spaces
        ("0::/\n", version_2("", GB, 3 * GB), 0, GB),
        ("0::/\n", version_2("", 0, 0), 0, 0),
        (V1, version_1("memory__job__", 2 * GB, GB, GB // 4), 1.25 * GB, 2 * GB),
        (V1, version_1("memory__", 4 * GB) | version_1("memory__job__", UNLIMITED), 4 * GB, 4 * GB),
        (V1, version_1("memory__", 4 * GB), 4 * GB, 4 * GB),
        (V1, version_1("memory__job__", UNLIMITED, 5 * GB), 8 * GB, 16 * GB),
        ("3:memory,hugetlb:/\n", version_1("memory,hugetlb__", GB), GB, GB),
        (V1 + "0::/job\n", version_1("memory__job__", 2 * GB) | version_2("unified__job__", GB), GB, GB),  # both
        (V1 + "0::/job\n", version_1("memory__job__", 2 * GB) | {"unified__cgroup.procs": "1"}, 2 * GB, 2 * GB),
        ("3:cpu:/\n", version_1("memory__", GB), 8 * GB, 16 * GB),  # not of this process
    ],
)  # fmt: skip
def test_free_memory_is_what_the_control_groups_leave(groups, files, free, total, host, tmp_path):
    root = fake_root(tmp_path, groups, **files)
    assert free_memory(root) == free
    assert total_memory(root) == total


@pytest.mark.parametrize("limit", ["", "\n", "lots", "-1", "1e9", "9" * 5000, "1 2", "²", "٣", "\x00", "max max"])
@pytest.mark.parametrize(
    "groups", ["", "0", "0::", "0::/\n", ":::\n\n0::/\n", "x:memory\n0::/a\n", "\x00:memory:\x00\n"]
)
def test_a_limit_that_cannot_be_read_is_none(limit, groups, host, tmp_path):
    root = fake_root(tmp_path, groups, **version_2("", limit, limit), **version_1("memory__", limit, limit))
    assert (free_memory(root), total_memory(root)) == (8 * GB, 16 * GB)


def test_bytes_that_are_no_text_and_folders_in_place_of_files(host, tmp_path):
    root = fake_root(tmp_path, "0::/\n", **version_2("", GB))
    (root / "sys/fs/cgroup/memory.max").write_bytes(b"\xff\xfe\n")
    assert free_memory(root) == 8 * GB
    (root / "sys/fs/cgroup/memory.max").unlink()
    os.mkfifo(root / "sys/fs/cgroup/memory.max")
    assert free_memory(root) == 8 * GB
    (root / "proc/self/cgroup").unlink()
    (root / "proc/self/cgroup").mkdir()
    assert free_memory(root) == 8 * GB
    assert free_memory(tmp_path / "nothing") == 8 * GB


def test_amounts_and_checks_go_by_the_control_groups(host, tmp_path, monkeypatch):
    root = fake_root(tmp_path, "0::/\n", **version_2("", 2 * GB, GB))
    monkeypatch.setattr("interp_kit.hardware.ROOT", root)
    assert bytes_of(None) == GB
    check_memory(GB, "a graph")
    with pytest.raises(MemoryError, match=r"a graph needs about 3 GB of memory and 1 GB are free"):
        check_memory(3 * GB, "a graph")


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a__cpu.max": "300000 100000", "a__b__cpu.max": "max 100000"}, 3),
        ("0::/\n", {"cpu.max": "1000 100000"}, 1),
        ("0::/\n", {"cpu.max": "0 0"}, 8),
        ("0::/\n", {"cpu.max": "many"}, 8),
        ("0::/\n", {}, 8),
        (V1, {"cpu__job__cpu.cfs_quota_us": "400000\n", "cpu__job__cpu.cfs_period_us": "100000\n"}, 4),
        (V1, {"cpu,cpuacct__job__cpu.cfs_quota_us": "400000\n", "cpu,cpuacct__job__cpu.cfs_period_us": "100000\n"}, 4),
        (V1, {"cpu__job__cpu.cfs_quota_us": "-1\n", "cpu__job__cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_cores_are_those_that_the_control_groups_allow(groups, files, cores, host, tmp_path):
    assert usable_cores(fake_root(tmp_path, groups, **files)) == cores
