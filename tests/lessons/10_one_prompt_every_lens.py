"""What lesson 10 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

assert named == ["logit lens", "chain of thought", "attribution graph"], "three lenses name Texas"

accuracy = trial.table.reset_index().set_index("claim")["accuracy"]
graph, lens = accuracy["a feature named after the place is in it"], accuracy["names the place after some layer"]
assert graph > lens, "the graph names the step more often than the logit lens"
