"""A class of thirty, graded: how long, in how much memory, and what each kind of submission took.

    python benchmarks/rehearsal.py       three to ten minutes; needs the extra `grading`

The submissions are those of tests/course/test_rehearsal.py: blank, right, each mistake, accidents, attacks. Two at
once, as `python -m interp_kit.course grade SUBMISSIONS OUT --jobs 2` runs them.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from course.grading.thirty import CLASS, NAME, written  # noqa: E402

from interp_kit.course.assignments import assignments_folder, read_notebook  # noqa: E402
from interp_kit.course.grading.grade import grade  # noqa: E402
from interp_kit.course.grading.report import grades  # noqa: E402


class Peak(threading.Thread):
    """The most that this process and all that it starts held at once, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.ended = 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.2):
            total = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it has ended
                    continue
            self.most = max(self.most, total)


def main() -> None:
    """Prints the table, and the sums."""
    released = read_notebook(assignments_folder() / "release" / NAME / f"{NAME}.ipynb")
    with tempfile.TemporaryDirectory() as place:
        submissions, out = Path(place, "submissions"), Path(place, "grades")
        for student, mine in CLASS.items():
            path = submissions / student / NAME / mine.name
            path.parent.mkdir(parents=True)
            nbformat.write(written(student, nbformat.from_dict(released)), path)
        peak, start = Peak(), time.monotonic()
        peak.start()
        results = grade(submissions, out, jobs=2)
        seconds = time.monotonic() - start
        peak.ended.set()
        again = time.monotonic()
        grade(submissions, out, jobs=2)
        again = time.monotonic() - again
    table = grades(results).set_index("student")[["score", "notes"]]
    table["seconds"] = [round(each.seconds, 1) for each in results]
    table["MB"] = [round(each.memory / 2**20) for each in results]
    pd.set_option("display.width", 200, "display.max_colwidth", 90, "display.max_rows", 50)
    print(table[["score", "seconds", "MB", "notes"]].to_string())
    usual = table[~table["notes"].str.contains(" it |^it |its process")]
    print(f"\n{len(table)} submissions in {seconds:.0f} s, {peak.most / 2**20:,.0f} MB at most, all processes together")
    print(f"one that ends by itself: {usual['seconds'].median():.0f} s and {usual['MB'].median():.0f} MB (medians)")
    print(f"a rerun in which nothing has changed: {again:.0f} s")


if __name__ == "__main__":
    main()
