"""What lesson 01 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

assert abs(parts.total - parts.logit) < 1e-3, "the parts sum to the logit difference"
assert brought.idxmax() == " Dallas", "the heads brought most from Dallas"

city, last = stream.table.columns[-2:]
assert stream.table[city].iloc[0] > 0.99, "below, the difference lies at the city"
assert stream.table[last].iloc[-1] > 0.9, "above, it has gone over to the last word"
assert stream.table.iloc[:, :-2].abs().max().max() < 0.01, "it is nowhere else"

mlp, moved = written["MLP"], written["attention"]
assert mlp.loc[:2, city].max() > 0.9, "MLPs 0 to 2 compute at the city"
assert moved.loc[3:4, last].min() > 0.3, "attention 3 and 4 moves to the last word"
assert moved[city].abs().max() < 0.1, "at the city attention does nothing"
assert mlp.loc[5, last] > 0.3, "MLP 5 computes at the last word"
assert mlp.loc[:2, last].abs().max() < 0.1, "the first MLPs do nothing at the last word"

assert lens.tokens[" is"].loc[3] == " Texas", "after layer 3 the last word's stream reads Texas"
assert lens.tokens[" is"].loc[4] == " Austin", "one layer later it reads Austin"

mlp, moved = (table.groupby(thirds).sum().iloc[:, -2:] for table in real.values())
assert mlp.iloc[0, 0] > 0.8, "SmolLM2: MLPs count early at the country"
assert moved.iloc[2, 1] > 0.8, "SmolLM2: late attention carries it to the last word"
assert moved.iloc[:, 0].abs().max() < 0.1, "SmolLM2: at the country attention does nothing"
assert mlp.iloc[2, 1] > 0.4, "SmolLM2: late MLPs finish at the last word"
largest = real["MLP"].iloc[:, -2].nlargest(2)
assert largest.index[0] == 0 and largest.iloc[0] > 0.9, "SmolLM2: MLP 0 alone restores everything"
assert largest.iloc[1] < 0.4, "SmolLM2: the next candidates are small"

assert (table.loc[0] < -5).all(), "MLP 0 is needed in all three"
assert table.loc[1:4, "zero"].min() > -0.1, "MLPs 1 to 4 are not missed when they write nothing"
assert table.loc[1:2, "resample"].max() < -3, "MLPs 1 and 2 matter when they write for another city"
assert table.loc[3:4, "resample"].min() > -0.1, "MLPs 3 and 4 do not"
assert table.loc[2:4, "mean"].max() < -2, "MLPs 2 to 4 matter when they write their mean"
