"""What lesson 07 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

assert top == {"city": " Dallas", "relation": " capital"}, "the word that matters changes with the question"
second = city.table.set_index("token")["value"].nlargest(2).index[1]
assert second == " is", "with a contrast, is falls to the second place"

assert space.table.set_index("token")["value"].idxmax() == " Chicago", "behind a space, Chicago matters most"
assert zero.values[-1] > 2 * sum(zero.values[:5]) / 5, "behind token 0, the later the word, the more important"

assert slope.residual > 0.5, "input x gradient accounts for hardly any of the score"
assert path.complete, "integrated gradients account for all of it"
assert fair.complete and shap.complete, "Shapley values always add up"
assert few.max() > 1.5 * few.min(), "with twenty orders Dallas's share depends on the seed by half and more"
assert table["300 orders"].idxmax() == " Dallas", "more orders settle it: Dallas"
