"""What lesson 02 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

assert 0.1 < typical["explained"] < 0.3, "a fifth of a typical neuron is what it does best"
assert typical["one_thing"] < 0.2, "few neurons are explained by half or more"

explained = both.summary["explained"]
assert explained["features"] > 3 * explained["neurons"], "features are another thing altogether"
assert explained["neurons"] < 2 * explained["random"], "a neuron is hardly better than a random direction"

assert kept(often) == 2, "two dimensions keep two things that are always there"
assert kept(seldom) == 5, "two dimensions keep five things that come up seldom"
