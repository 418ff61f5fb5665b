"""A real JupyterLab for a test: a server on a free loopback port, and a notebook run cell by cell."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request

RUN_ALL = """async () => {
  const app = window.jupyterapp, start = Date.now();
  await app.started;
  const wait = async (ready, what) => {
    while (!ready()) {
      if (Date.now() - start > 120000) throw new Error('timed out waiting for the ' + what);
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  };
  await wait(() => app.shell.currentWidget?.context, 'document');
  const panel = app.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  await wait(() => panel.sessionContext.session?.kernel?.status === 'idle', 'kernel');
  await app.commands.execute('notebook:run-all-cells');
  const cells = [...panel.content.widgets].map(cell => cell.model.toJSON());
  return cells.flatMap(cell => cell.outputs ?? []).filter(output => output.output_type === 'error')
    .map(output => output.ename + ': ' + output.evalue);
}"""


@contextlib.contextmanager
def jupyterlab(root, prefix=""):
    """Serve the folder `root`; yields the base URL. Settings and runtime files stay inside `root`. A `prefix` such as
    "/user/ada" is where JupyterHub would serve it, and kernels are told so as by JupyterHub."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = root / ".settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)  # or the "Jupyter news" toast covers a corner of the page
    quiet = '{"fetchNews": "false", "checkForUpdates": false}'
    (settings / "notification.jupyterlab-settings").write_text(quiet)
    folders = {
        "JUPYTER_CONFIG_DIR": ".config",
        "JUPYTER_DATA_DIR": ".data",
        "IPYTHONDIR": ".ipython",
        "JUPYTER_RUNTIME_DIR": ".runtime",
        "JUPYTERLAB_SETTINGS_DIR": ".settings",
    }
    env = os.environ | {key: str(root / name) for key, name in folders.items()}
    env["JUPYTER_PLATFORM_DIRS"] = "1"
    if prefix:
        env["JUPYTERHUB_SERVICE_PREFIX"] = f"{prefix}/"
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--port-retries=0",
        "--ServerApp.ip=127.0.0.1",
        "--IdentityProvider.token=",
        f"--ServerApp.base_url={prefix}/",
        f"--ServerApp.root_dir={root}",
        "--expose-app-in-browser",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.news_url=",
    ]
    with open(root / "server.log", "w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield _wait_until_up(server, f"http://127.0.0.1:{port}{prefix}", root / "server.log")
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_until_up(server, base, log):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(base + "/api/status", timeout=2)
            return base
        if server.poll() is not None:
            break
        time.sleep(0.2)
    raise RuntimeError("JupyterLab did not start:\n" + log.read_text()[-2000:])


def open_notebook(page, base, name):
    """Open `name` in the page, and run nothing."""
    page.allowed = (base, base.replace("http", "ws"), "data:", "blob:")
    page.goto(f"{base}/doc/tree/{name}")
    page.wait_for_function("() => window.jupyterapp !== undefined", timeout=120_000)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=120_000)


def run_notebook(page, base, name):
    """Open `name` in the page and run every cell; returns the errors that cells ended with."""
    open_notebook(page, base, name)
    return page.evaluate(RUN_ALL)


def save_and_stop(page):
    """Save the notebook, and end its kernel."""
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
