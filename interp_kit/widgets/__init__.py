"""What a notebook shows: plain data in, a view out. Nothing here imports torch or the rest of interp_kit."""

import pandas as pd

from .feature_card import FeatureBrowser, FeatureCard, FeatureCardData, FeatureRow
from .graph_data import GraphData
from .graph_svg import graph_svg
from .graph_view import GraphView, graph_page, is_page

__all__ = [
    "FeatureBrowser", "FeatureCard", "FeatureCardData", "FeatureRow", "GraphData", "GraphView", "graph_page",
    "graph_svg", "is_page",
]  # fmt: skip

# In a table of tokens a $ is a token, and no formula begins there.
pd.set_option("display.html.use_mathjax", False)
