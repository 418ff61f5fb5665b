"""The pictures of docs/graphs.md, from the pocket model and from what the benchmarks left in build/.

python docs/pictures.py        after benchmarks/chains.py, middle_hop.py and circuits.py
"""

from pathlib import Path

import pandas as pd

import interp_kit as ik
from interp_kit.graphs.head_view import heads_chart
from interp_kit.graphs.heads import head_loadings
from interp_kit.graphs.views import boxes_data
from interp_kit.widgets import graph_svg
from interp_kit.widgets.chart import Chart

ROOT = Path(__file__).parent.parent
PICTURES, BUILD = ROOT / "docs" / "pictures", ROOT / "build"
PROMPT = "The capital of the state containing {} is"
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
LOOK = {"template": "plotly_white", "height": 380, "width": 760, "legend": {"orientation": "h", "y": -0.2}}


def main():
    model, transcoder = ik.load_model("pocket"), ik.load_transcoder("pocket")
    features, labels = ik.load_features("pocket"), ik.load_labels("pocket")

    def graph_of(city, **asked):
        return ik.attribute(model, transcoder, PROMPT.format(city), **asked).annotate(features, labels)

    dallas = graph_of("Dallas")
    why = graph_of("Dallas", target=" Austin", contrast=" Sacramento")
    family = ik.graphs.family(
        [graph_of(city).prune() for city in ("Dallas", "Oakland", "Miami", "Chicago", "San Antonio")]
    )
    write("contributions", contributions(dallas, why))
    write("belief", graph_svg(dallas.believe().prune().view_data()))
    write("boxes", graph_svg(boxes_data(dallas.prune().group("auto", transcoder))))
    write("family", graph_svg(family.view_data()))
    write("heads", heads(dallas, model, transcoder))
    write("chains", chains())
    write("middle_hop", middle_hop())
    write("circuits", circuits())


def write(name, picture):
    svg = picture if isinstance(picture, str) else picture.picture().svg
    (PICTURES / f"{name}.svg").write_text(svg + "\n", encoding="utf-8")


def contributions(dallas, why):
    """What each token contributes to Austin, and to Austin rather than Sacramento."""
    figure = Chart()
    graphs = {"Austin, less the mean of all tokens": dallas, "Austin rather than Sacramento": why}
    for (name, graph), colour in zip(graphs.items(), COLOURS):
        tokens = graph.embeddings
        figure.add_bar(x=tokens["token"], y=tokens["contribution"], name=name, marker={"color": colour})
    title = "What each token contributes, over all paths"
    return figure.update_layout(title=title, barmode="group", yaxis={"title": "of the logit"}, **LOOK)


def heads(graph, model, transcoder):
    """The strongest edge from Dallas to the last position, by heads."""
    node, edges = graph.nodes.set_index("id"), graph.edges
    far = (edges["source"].map(node["token"]) == " Dallas") & (edges["target"].map(node["kind"]) == "feature")
    far &= edges["target"].map(node["position"]) > edges["source"].map(node["position"])
    edge = edges[far].iloc[0]
    table = head_loadings(graph, model, transcoder, edge["source"], edge["target"]).head(8)
    names = [node["label"][end].strip() for end in (edge["source"], edge["target"])]
    return heads_chart(table, " → ".join(names))


def chains():
    """Agreement with interventions by the length of paths."""
    figure = Chart()
    files = sorted((BUILD / "chains").glob("*.csv"), reverse=True)
    for file, colour in zip(files, COLOURS):
        table = pd.read_csv(file).query("pairs >= 100")
        figure.add_scatter(
            x=table["hops"], y=table["spearman"], name=file.stem, mode="lines+markers", line={"color": colour},
        )  # fmt: skip
    figure.add_scatter(x=[1, 11], y=[0.5, 0.5], name="0.5", mode="lines", line={"color": "#777777", "dash": "dash"})
    return figure.update_layout(
        title="Do interventions agree with what paths of a length predict?",
        xaxis={"title": "edges from feature to target"}, yaxis={"title": "Spearman"}, **(LOOK | {"height": 460}),
    )  # fmt: skip


def middle_hop():
    """The share that passes the place, for each set, beside the model's."""
    table = pd.read_csv(BUILD / "middle_hop" / "shares.csv")[::-1]
    names = [f"{row.set.removeprefix('pocket, ')} (L0 {row.L0:.1f})" for row in table.itertuples()] + [
        "the model itself"
    ]
    values, colours = [*table["share"], 1.0], ["#0072B2"] * len(table) + ["#D55E00"]
    figure = Chart().add_bar(x=values, y=names, orientation="h", marker={"color": colours})
    return figure.update_layout(
        title="Of what the city contributes, the share that passes its place", xaxis={"tickformat": ".0%"}, **LOOK
    )


def circuits():
    """Faithfulness by the share of edges or features that is kept."""
    table, figure = pd.read_csv(BUILD / "circuits" / "faithfulness.csv"), Chart()
    for row, colour in zip(table.itertuples(index=False), COLOURS * 2):
        shares = [name for name in table.columns if name.replace(".", "").isdigit()]
        values = table[(table["circuit of"] == row[0]) & (table["by"] == row[1])][shares].iloc[0]
        dash = "solid" if row[0] == "features" else "dot"
        figure.add_scatter(
            x=[float(s) for s in shares], y=values, name=f"{row[0]}: {row[1]}", mode="lines+markers",
            line={"color": colour, "dash": dash},
        )  # fmt: skip
    return figure.update_layout(
        title="Faithfulness of circuits", xaxis={"title": "share that is kept", "type": "log"},
        yaxis={"title": "faithfulness"}, **(LOOK | {"height": 460}),
    )  # fmt: skip


if __name__ == "__main__":
    main()
