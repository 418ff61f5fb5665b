"""What lesson 10 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

assert named == ["logit lens", "chain of thought", "attribution graph"], "three lenses name Texas"

right = trial.table.reset_index().set_index("claim")["right"]
graph, lens = right["a feature named after the place is in it"], right["names the place after some layer"]
assert graph > lens, "the graph names the step more often than the logit lens"
