"""What lesson 06 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

by_token = answer.table.set_index("token")
fact, stop = by_token.loc[" Austin"], by_token.loc["."]
grammar = by_token.loc[[" capital", " of", " Texas", " is"]]
assert grammar["probability"].min() > 0.8, "grammar and repetition are nearly certain"
assert fact["probability"] < 0.8, "the fact is not"
assert fact["entropy"] > 4 * grammar["entropy"].max(), "the fact is an open choice, grammar is not"
assert stop["probability"] < fact["probability"], "the full stop is less certain than the fact"
assert stop["entropy"] < fact["entropy"], "the full stop is a less open choice than the fact"

assert llama.text == "🦙!", "an emoji survives its split into tokens"
assert again.text == answer.text, "the answer survives a journey through JSON"
least, exact = again.table["entropy"], answer.table["entropy"]
assert (least <= exact + 1e-6).all(), "from a service's alternatives the entropy is at least so much"

assert calibrated.error < 0.03, "on its own mix the model is calibrated"
assert middle["correct"].mean() > middle["confidence"].mean() + 0.1, "on another mix it is under-confident"
assert shifted.error > calibrated.error, "on another mix it is less calibrated"
most = set(middle["prediction"].value_counts().index[:3])
assert most <= {" the", " containing", " What", " is", " a", " of", " in"}, "these tokens are words of the wording"

assert doubt["entropy"][0] > 3, "a made-up city leaves the fact wide open"
assert known["entropy"][0] < 0.5, "for Dallas there is no such choice"
assert doubt["probability"][1] > 0.99, "the model is quite sure of the full stop"
