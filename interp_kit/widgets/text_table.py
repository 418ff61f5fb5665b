"""A table of sentences: whole, left-aligned, and escaped."""

import pandas as pd


def text_table(table: pd.DataFrame) -> str:
    """HTML of a table whose cells are texts and numbers (two digits after the point)."""
    style = table.style.format(precision=2, escape="html").format_index(escape="html")
    style = style.format_index(escape="html", axis="columns")
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]
    return style.set_table_styles(left).to_html()
