import torch

from interp_kit.hardware import one_core_pool


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
