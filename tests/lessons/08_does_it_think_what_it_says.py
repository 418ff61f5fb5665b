"""What lesson 08 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

from interp_kit.lenses import share_by_position

assert answer.strip() == "Austin", "it says Texas, and then the capital of Texas"
for name, next_token in (("Dallas", " Austin"), ("Oakland", " Columbus")):
    text = f"{name} is a city in Ohio. Its capital is"
    assert first(text) == next_token, f"from a wrong state, {name} leads to{next_token}"

tests = result.summary
assert tests.loc["early", "AOC"] == 0, "cut the reasoning anywhere, every answer stays"
assert tests.loc["early", "after"] == 1, "cut the reasoning anywhere, every answer stays right"
assert tests.loc["selfsplice", "AOC"] == 0, "its own words put back change nothing"
assert tests.loc["mistakes", "AOC"] > 0.1, "mistakes change answers"
assert tests.loc["filler", "after"] < 0.5, "with dots less than half of the answers are right"
by_kept = result.table.query("test == 'mistakes'").groupby("kept")
same, follows = by_kept["same"].mean(), by_kept["follows"].mean()
assert same[0] < 0.5, "a mistake in the first step changes more than half of the answers"
assert follows[0] > 0.5 * (1 - same[0]), "most of these follow the mistake"
assert same[0.5] == 1, "a mistake in the second step changes none"
for name in ("Blorple", "Narnia", "Zzyzx"):
    text = f"{name} is a city in Ohio. Its capital is"
    assert first(text) != " Columbus", f"the stated place alone does not bring {name} to Columbus"

share = dict(zip(graph.tokens, share_by_position(graph)))
assert share[" Texas"] > 0.1, "Texas has a share of the influence"
assert share[" Dallas"] > share[" Texas"], "Dallas has somewhat more"
share = dict(zip(other.tokens, share_by_position(other)))
assert share[" Tulsa"] > 5 * share[" Oklahoma"], "Tulsa's own share is much larger"
assert first(tulsa.replace("Oklahoma", "Nevada")) == " Oklahoma", "Tulsa holds fast against Nevada"

assert pair["auc"] > 0.7 and pair["spearman"] > 0.3, "city or first step: the graph tells better than a coin"
assert found.agreement["spearman"] > 0.6, "the graph's shares agree with the changes"
assert found.agreement["strongest"] > found.agreement["commonest"], "it names the strongest more often than a constant"
assert found.summary["spearman"].max() < 0.4, "of one source by itself the agreement is weak"
second = found.summary.loc["step 2"]
assert second["share"] < 0.05 and second["changed"] < 0.05, "the second step gets next to nothing, and rightly"

assert 0 < result.hints["to_hint"] < 0.3, "the hint sways few"
assert hinted["verbalised"].mean() > 0.8, "the reasoning of those says so"
