"""What lesson 05 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

difference = change_of(frozen, edge["target"]) + edge["weight"]
assert abs(difference) < 1e-4, "in the frozen world the edge is right to four digits"
assert largest < 1e-3, "in the frozen world every effect is the edge"

assert ratio.between(0, 1).mean() > 0.7, "in the real model most effects have the right direction, and are less"
assert tested.by_distance["cosine"].iloc[0] > 0.8, "the cosine of neighbours is above the paper's"
nmse = tested.by_distance["nmse"]
assert 0.8 < nmse.iloc[0] < 1.2, "the nmse of neighbours is about 1"
assert (nmse.iloc[1:] > 1.2).all(), "further on the nmse is above 1"

group = grouped.nodes.set_index("node").loc["Texas"]
assert group["ablation"] > 500 * alone["ablation"].max(), "alone hardly anything moves; together they carry the answer"
assert score["cosine"] > 0.95, "for the group, order and direction are right"
assert score["nmse"] < 0.5, "for the group, the squared difference is small"
listed = grouped.distrust()["source"]
assert listed.isin([*texas, "Texas"]).sum() <= 2, "after grouping two of the listed edges come from Texas"
hops = tested.by_hops.set_index("hops")
assert hops.loc[3, "nmse"] > 10 * hops.loc[1, "nmse"], "over three edges the amounts are far off"
assert hops.loc[3, "spearman"] > 0.4, "the order holds up for a while"
assert 0.4 < by_belief.loc[True, "mean"] < 0.6, "about half of the edges that it believes are confirmed"
assert by_belief.loc[False, "mean"] < 0.2, "of the others one in six"

assert 0.3 < everything.spearman < 0.72, "influence and ablation agree less than in the paper"

assert "Austin" in swapped.text_before, "the answer is Austin before the swap"
assert "Sacramento" in swapped.text_after, "with California's features the answer is Sacramento"

assert relative < 1e-3, "the arithmetic holds for a GPT-2"
