"""What lesson 04 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

assert known["named"].mean() > 0.8, "most features that detect one concept are named after it"

steering = steered.groupby("agrees")["steering"].mean()
assert steering[True] > steering[False] + 0.1, "features that write what their name says keep its promise more often"
assert steering[True] > 0.55, "they keep it more often than chance"

assert 0.55 < names["detection"].mean() < 0.65, "SmolLM2: its names are a little better than guessing"
assert 0.6 < share["words"] < 0.75, "SmolLM2: two names of three are words that nothing ties together"
