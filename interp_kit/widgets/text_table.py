"""A table of sentences: whole, left-aligned, and escaped."""

import html

import pandas as pd


def text_table(table: pd.DataFrame) -> str:
    """HTML of a table whose cells are texts and numbers (two digits after the point).

    >>> text_table(pd.DataFrame({"prompt": ["2 + 2 ="], "score": [0.5]}))
    '<style ...'
    """
    table = table.copy(deep=False)
    table.index, table.columns = _escaped(table.index), _escaped(table.columns)  # of a styled table nothing else does
    style = table.style.format(precision=2, escape="html")
    style = style.format_index(escape="html").format_index(escape="html", axis="columns")
    style = style.set_table_attributes('class="mathjax_ignore tex2jax_ignore"')
    return style.set_table_styles([{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]).to_html()


def _escaped(labels: pd.Index) -> pd.Index:
    """The labels, with what the whole of them is called made harmless."""
    return labels.set_names([name if name is None else html.escape(str(name)) for name in labels.names])
