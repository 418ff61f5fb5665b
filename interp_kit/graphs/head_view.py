"""Click an edge and see its heads; choose a head and see which features made it look."""

from functools import cache

import pandas as pd

from ..models import LanguageModel
from ..models.arguments import checked
from ..transcoders import CrossLayerTranscoder
from ..widgets import GraphView
from ..widgets.bars import signed_bars
from ..widgets.chart import Chart
from ..widgets.head_browser import HeadBrowser, Heads
from .graph import AttributionGraph
from .heads import STAYS, head_loadings
from .influence import LEFT_OUT
from .qk_attribution import qk_attribution
from .views import drawable

SHOWN_HEADS = 10
NO_HEADS = pd.DataFrame({"layer": [], "head": [], "loading": [], "share": []})


@checked
def browse_heads(graph: AttributionGraph, model: LanguageModel, transcoder: CrossLayerTranscoder) -> HeadBrowser:
    """The graph's view, in which a click on an edge shows the heads that it runs through (`head_loadings`), and a head
    the pairs of features that made it look (`qk_attribution`): from the target's position at the source's. It opens
    with the strongest edge between two positions.

    Raises what `head_loadings` does. Of a large graph the 300 most influential nodes are drawn.

    >>> ik.graphs.browse_heads(graph.prune(), model, transcoder)
    """
    node = graph.nodes.set_index("id")
    labels = graph.features[["layer", "feature", "label"]]

    @cache
    def loadings(source: str, target: str) -> pd.DataFrame:
        return head_loadings(graph, model, transcoder, source, target).head(SHOWN_HEADS)

    def heads_of(source: str, target: str) -> tuple[Heads, Chart]:
        if node["kind"][source] == LEFT_OUT:
            return [], heads_chart(NO_HEADS, "what was left out has no heads")
        found = loadings(source, target)
        rows = found[found["layer"] != STAYS][["layer", "head", "share"]].itertuples(index=False, name=None)
        heads = [(f"layer {layer}, head {head}: {share:.0%} of the edge", (layer, head)) for layer, head, share in rows]
        return heads, heads_chart(found, f"{node['label'][source].strip()} → {node['label'][target].strip()}")

    def pairs_of(source: str, target: str, layer: int, head: int) -> Chart:
        key, query = int(node["position"][source]), int(node["position"][target])
        prompt = graph.prompt if graph.ids is None else graph.ids.tolist()
        return qk_attribution(model, transcoder, prompt, layer, head, key, query, labels=labels).show()

    drawn = drawable(graph)
    view = GraphView(drawn.view_data())
    view.edge = _opening(drawn)
    return HeadBrowser(view, heads_of, pairs_of)


def _opening(graph: AttributionGraph) -> list[str]:
    """The strongest edge between two positions, which runs through heads; of one position, or none, where there is
    none."""
    node, edges = graph.nodes.set_index("id"), graph.edges
    edges = edges[edges["source"].map(node["kind"]) != LEFT_OUT]
    far = edges[edges["source"].map(node["position"]) != edges["target"].map(node["position"])]
    return (far if len(far) else edges)[["source", "target"]].head(1).to_numpy().ravel().tolist()


def heads_chart(table: pd.DataFrame, edge: str) -> Chart:
    """A plotly bar chart of an edge's loadings."""
    names = ["no head" if row.layer == STAYS else f"L{row.layer} head {row.head}" for row in table.itertuples()]
    return signed_bars(table["loading"].tolist(), names, f"Through which heads “{edge}” runs", "part of the edge")
