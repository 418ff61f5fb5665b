import psutil
import pytest
import torch

from interp_kit.hardware import bytes_of, check_memory, one_core_pool


@pytest.mark.parametrize(("memory", "wanted"), [("2GB", 2e9), ("1.5 mb", 1.5e6), (5e5, 5e5), ("800", 800), (7, 7)])
def test_amounts_of_memory(memory, wanted):
    assert bytes_of(memory) == wanted


@pytest.mark.parametrize("memory", ["lots", "GB", "-1GB", 0, "2 gigs", "", "nan", float("nan")])
def test_what_is_no_amount_of_memory(memory):
    with pytest.raises(ValueError, match="expected a number of bytes"):
        bytes_of(memory)


def test_more_memory_than_there_is_is_refused_by_name():
    assert 0 < bytes_of(None) <= psutil.virtual_memory().total
    check_memory(1, "a number")
    with pytest.raises(MemoryError, match="a graph of graphs needs about 1e"):
        check_memory(1e24, "a graph of graphs")


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
