"""An executed lesson as a page: its prose as Markdown, its code as code blocks, its outputs as they looked.

mkdocs-jupyter could show notebooks too; its pages bring JupyterLab's style sheets and scripts, and mkdocs does not
check their links.
"""

import html
import json
import re

from lessons import executed

PLOTLY = "application/vnd.plotly.v1+json"
LIVE_VIEW = "application/vnd.jupyter.widget-view+json"
ONLY_LIVE = '<p class="only-live">Shown only while the notebook runs.</p>'
ESCAPE_CODES = re.compile(r"\x1b\[[0-9;]*m")


def lesson_page(lesson) -> tuple[str, list[str]]:
    """The page's Markdown with places for the outputs, and each output as HTML.

    The outputs are filled in later (`fill_in`), because a Markdown reader would take parts of them for Markdown.
    """
    parts, outputs = [], []
    for cell in executed(lesson).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source.replace("<details>", '<details markdown="1">'))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            if shown := _as_html(output, len(outputs)):
                parts.append(_place(len(outputs)))
                outputs.append(f'<div class="output" data-search-exclude>{shown}</div>')
    return "\n\n".join(parts), outputs


def fill_in(page: str, outputs: list[str]) -> str:
    """The page with its outputs, and plotly where one is a chart."""
    for number, output in enumerate(outputs):
        page = page.replace(_place(number), output)
    if "Plotly.newPlot" in page:
        page = '<script src="../assets/plotly.js"></script>' + page
    return page


def _place(number) -> str:
    return f'<div data-output="{number}"></div>'


def _as_html(output, number) -> str:
    if output.output_type == "stream":
        return f"<pre>{html.escape(ESCAPE_CODES.sub('', output.text))}</pre>"
    data = output.data
    if PLOTLY in data:
        return _chart(data[PLOTLY], number)
    if "text/html" in data:
        # A frame shows what a program beside the kernel serves: there is none here.
        return ONLY_LIVE if "<iframe" in data["text/html"] else data["text/html"]
    if "image/svg+xml" in data:
        return data["image/svg+xml"]
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{data["image/png"]}">'
    if LIVE_VIEW in data:
        return ""  # a progress bar
    return f"<pre>{html.escape(data['text/plain'])}</pre>"


def _chart(figure, number) -> str:
    title = figure["layout"].get("title", {}).get("text", "chart")
    values = json.dumps([figure["data"], figure["layout"]]).replace("</", "<\\/")
    return (
        f'<div id="chart-{number}" role="img" aria-label="{html.escape(title)}"></div>'
        f'<script>Plotly.newPlot("chart-{number}", ...{values}, {{responsive: true, displaylogo: false}})</script>'
    )
