"""What lesson 00 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

best = model.next_tokens(prompt, k=1)
assert ("Dallas", "capital") in world.held_out, "the first question was never told"
assert best["token"].item().strip() == "Austin", "the answer is Austin"
assert best["probability"].item() > 0.9, "the answer is sure"

dallas = paths.loc[paths["token"] == " Dallas", "steps"].item()
assert "→ Texas →" in dallas, "the strongest chain from Dallas goes through Texas"
assert texas["detects"].notna().sum() == 4, "four of the features named Texas detect one concept"
assert detector["detects"].startswith("place:Texas ("), "the most influential of these detects Texas"

rest = words.drop(" Dallas")
assert words[" Dallas"] > 5 * rest.abs().max(), "Dallas decides between the two"
assert words[" Dallas"] > value > 5, "Dallas contributes more than the whole"

assert 0.11 < through_errors < 0.14, "one part in eight of the influence starts at errors"
assert errors["id"].iloc[0] == "0_-1_7", "the largest error is that of layer 0 at Dallas"
others = errors["influence"].iloc[1:]
assert errors["influence"].iloc[0] > others.max() * 4, "the largest error stands far above the others"
assert abs(arrives - activation) < 1e-3, "edges and bias sum to the activation"

capitals = {facts["capital"] for facts in world.facts.values()}
instead = set(result.table["token"].head(3).str.strip())
assert instead <= capitals and "Austin" not in instead, "with Texas pushed, other capitals come"
assert austin(result) < 0.05 and austin(control) > 0.9, "Texas counts, and other features at the same place do not"

assert ("Kakamega", "currency") in world.held_out, "the question of the exercise was never told"
