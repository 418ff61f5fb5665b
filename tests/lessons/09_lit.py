"""What lesson 09 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

assert table["gradient"].idxmax() == " Dallas" and table["gradient"].max() > 0.3, "Dallas has a third of the gradient"
assert table["fall"].idxmax() == " is", "leaving out is costs the answer most"
assert agreement < 0.5, "the two maps hardly agree"

for city, capital in {"Chicago": " Springfield", "Oakland": " Sacramento"}.items():
    best = model.next_tokens(prompt.replace("Dallas", city), k=1)
    assert best["token"].item() == capital, f"{city} gives{capital}"
