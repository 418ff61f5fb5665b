"""Wall time, CPU time and peak memory of a block of code. Only the standard library and psutil: a peer's environment
imports it too."""

import threading
import time

import psutil


class Measure:
    """with Measure() as m: ...   then m.wall, m.cpu [s], m.before, m.peak [MB of resident memory, every 10 ms]."""

    def __enter__(self):
        self._process, self._running = psutil.Process(), True
        self.before = self.peak = self._resident()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.wall, self.cpu = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        self._running = False
        self._watcher.join()

    def _resident(self):
        return self._process.memory_info().rss / 2**20

    def _watch(self):
        while self._running:
            self.peak = max(self.peak, self._resident())
            time.sleep(0.01)

    @property
    def numbers(self) -> dict[str, float]:
        return {"wall": self.wall, "cpu": self.cpu, "extra": self.peak - self.before, "peak": self.peak}
