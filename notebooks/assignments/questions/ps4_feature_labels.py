"""ps4: the name of a feature, and whether it is true. What is shown, how a name is scored, what a score can hide."""

import random
from functools import cache
from itertools import islice

import torch
from torch import Tensor

import interp_kit as ik
from interp_kit.course import FunctionQuestion, ValueQuestion, variant
from interp_kit.course.puzzles.puzzle import normal
from interp_kit.features.dictionaries import TranscoderFeatures
from interp_kit.worlds.truth import graded

# The concept of each, "names this state", has one feature of layer 1 that is well ahead of the second.
STATES = [
    "Alaska", "Florida", "Georgia", "Louisiana", "Minnesota", "New Jersey",
    "Oklahoma", "Oregon", "Rhode Island", "South Dakota", "Utah", "Wisconsin",
]  # fmt: skip
# Features of layer 0 that detect a word with an F1 of 1, and fire on others more weakly.
WORD_OF = {
    1721: "Chile", 1990: "Afghanistan", 1405: "Greece", 1830: "Oran", 2358: "Johannesburg", 2250: "Marka",
    1090: "Sweden", 417: "Belgium", 316: "Ukraine", 1313: "Sfax", 15: "Buraydah", 1463: "Tupelo",
}  # fmt: skip
LAYER = 1  # of the detectors
N_ABOUT, N_OTHERS = 40, 120  # sentences, at most


def flags(draw: random.Random, n: int, share: float) -> Tensor:
    """n times true or false, true with this probability."""
    return torch.tensor([draw.random() < share for _ in range(n)])


def balanced(says: Tensor, fires: Tensor) -> float:
    """The mean of the shares of right answers, where it fires and where it does not; both [text]."""
    found = float(says[fires].double().mean())
    left_out = float((~says[~fires]).double().mean())
    return (found + left_out) / 2


def f1(says: Tensor, fires: Tensor) -> float:
    return float(2 * (says & fires).sum() / (says.sum() + fires.sum()))


# ---------------------------------------------------------------------- q1: not only the strongest


def part_of(strengths: list[float], n: int) -> list[int]:
    """strengths [text], the highest activation in each; n divides how many are above 0 -> the part of each text: the
    texts in which it fires, cut into n parts of as many texts each, 0 the strongest; -1 where it does not fire"""
    fires = [text for text in range(len(strengths)) if strengths[text] > 0]
    strongest_first = sorted(fires, key=lambda text: -strengths[text])
    parts = [-1] * len(strengths)
    for rank, text in enumerate(strongest_first):
        parts[text] = rank * n // len(fires)
    return parts


def equal_widths(strengths: list[float], n: int) -> list[int]:
    """Parts of the same width in activation, not of as many texts."""
    top = max(strengths)
    return [min(int((1 - s / top) * n), n - 1) if s > 0 else -1 for s in strengths]


def draw_strengths(draw: random.Random) -> tuple:
    """A few strong texts, many weak ones, and as many in which it does not fire."""
    n = draw.randint(2, 4)
    strengths = [round(draw.lognormvariate(0, 1) + 0.01 * i, 3) for i in range(n * draw.randint(2, 3))]
    strengths += [0.0] * draw.randint(n, 2 * n)
    draw.shuffle(strengths)
    return strengths, n


PARTS = FunctionQuestion(
    "q1",
    "part_of",
    part_of,
    {
        "The texts in which it does not fire were counted when the parts were cut.": lambda strengths, n: [
            part if strengths[text] > 0 else -1
            for text, part in enumerate(part_of([s + 1 for s in strengths], n))  # all are above 0 now
        ],
        "These are parts of the same width in activation; asked are parts with as many texts each.": equal_widths,
        "0 is the part of the strongest texts, not of the weakest.": lambda strengths, n: [
            n - 1 - part if part >= 0 else -1 for part in part_of(strengths, n)
        ],
        "Parts are counted from 0.": lambda strengths, n: [
            part + 1 if part >= 0 else -1 for part in part_of(strengths, n)
        ],
        "Where it does not fire, -1 is wanted: such a text is in no part.": lambda strengths, n: [
            part if part >= 0 else n - 1 for part in part_of(strengths, n)
        ],
    },
    draw_strengths,
)


# ---------------------------------------------------------------------- q2: the score of a name


def detection(expected: Tensor, activations: Tensor) -> float:
    """expected [text, position], where the name expects the feature to fire; activations [text, position] -> how well
    the name tells in which texts it fires: balanced accuracy over texts"""
    says = torch.tensor([bool(text.any()) for text in expected])
    fires = torch.tensor([bool((text > 0).any()) for text in activations])
    return balanced(says, fires)


def draw_texts(draw: random.Random) -> tuple:
    """A few texts in which it fires, many in which it does not. The name is right on most, now and then on another
    token of the text, and expects it in some that are silent."""
    n_fires, n_silent, positions = draw.randint(4, 6), draw.randint(9, 14), 6
    expected = torch.zeros(n_fires + n_silent, positions, dtype=torch.bool)
    activations = torch.zeros(n_fires + n_silent, positions)
    order = draw.sample(range(n_fires + n_silent), n_fires + n_silent)
    for text in order[:n_fires]:
        here, elsewhere = draw.sample(range(positions), 2)
        activations[text, here] = draw.uniform(0.2, 4)
        kind = draw.random()
        if kind < 0.8:
            expected[text, here if kind < 0.5 else elsewhere] = True
    for text in order[n_fires:]:
        expected[text, draw.randrange(positions)] = draw.random() < 0.3
    return expected, activations


DETECTION = FunctionQuestion(
    "q2",
    "detection",
    detection,
    {
        "This is the share of all texts. Most are silent, so who always says no would get far. Count each side half.": (
            lambda expected, activations: (expected.any(1) == (activations > 0).any(1)).double().mean()
        ),
        "This is over tokens. Detection asks about whole texts: is there any token in it?": (
            lambda expected, activations: balanced(expected.flatten(), activations.flatten() > 0)
        ),
        "This looks at the texts in which it fires only. A name that fits every text would be perfect then.": (
            lambda expected, activations: expected.any(1)[(activations > 0).any(1)].double().mean()
        ),
        "The judge is told the name, not where the feature fires: it says yes where the name fits any token of the "
        "text, the right one or not.": lambda expected, activations: balanced(
            (expected & (activations > 0)).any(1), (activations > 0).any(1)
        ),
        "This is F1. It does not count the silent texts that the name leaves out rightly.": (
            lambda expected, activations: f1(expected.any(1), (activations > 0).any(1))
        ),
    },
    draw_texts,
)


# ---------------------------------------------------------------------- q3: without a threshold


def auc(activations: Tensor, concept: Tensor) -> float:
    """activations [token], concept [token] true or false -> of all pairs of a token with the concept and one without
    it, the share in which the first has the higher activation; a tie counts half"""
    won, pairs = 0.0, 0
    for a in activations[concept].tolist():
        for b in activations[~concept].tolist():
            won += 1 if a > b else 0.5 if a == b else 0
            pairs += 1
    return won / pairs


def ties_count(activations: Tensor, concept: Tensor, worth: float) -> float:
    difference = activations[concept][:, None] - activations[~concept]
    return float((difference > 0).double().mean() + worth * (difference == 0).double().mean())


def draw_tokens(draw: random.Random) -> tuple:
    """Silent on most tokens, of either kind; of the others some are equal."""
    concept = [True] * draw.randint(4, 7) + [False] * draw.randint(14, 20)
    activations = [float(draw.randint(1, 5)) if draw.random() < (0.6 if here else 0.3) else 0.0 for here in concept]
    activations[:2], activations[-2:] = [0.0, 2.0], [0.0, 3.0]
    order = draw.sample(range(len(concept)), len(concept))
    return torch.tensor([activations[i] for i in order]), torch.tensor([concept[i] for i in order])


AUC = FunctionQuestion(
    "q3",
    "auc",
    auc,
    {
        "A tie counts half, and here it counts nothing. The feature is silent on most tokens: most pairs are ties.": (
            lambda activations, concept: ties_count(activations, concept, 0)
        ),
        "A tie counts as won here. A feature that never fires would be perfect then; a tie counts half.": (
            lambda activations, concept: ties_count(activations, concept, 1)
        ),
        "Only tokens on which it fires are compared. That it is silent on a token of the concept should count, too.": (
            lambda activations, concept: auc(activations[activations > 0], concept[activations > 0])
        ),
        "This is the other way round: the share in which the token without the concept has the higher one.": (
            lambda activations, concept: auc(-activations, concept)
        ),
        "The mean activations were compared, or firing and not firing; asked is a share of pairs.": (
            lambda activations, concept: float((activations[concept] > activations[~concept].mean()).double().mean())
        ),
    },
    draw_tokens,
)


# ---------------------------------------------------------------------- q4: choose on some, score on others


def two_scores(says: Tensor, fires: Tensor, seen: Tensor) -> tuple[float, float]:
    """says [name, text], in which texts each name expects the feature; fires [text]; seen [text], which may be used to
    choose -> balanced accuracy of the name that is best on the seen texts: on these, and on the others"""
    scores = [balanced(name[seen], fires[seen]) for name in says]
    best = max(range(len(says)), key=lambda name: scores[name])
    return scores[best], balanced(says[best][~seen], fires[~seen])


def scores_on(says: Tensor, fires: Tensor, texts: Tensor) -> Tensor:
    """Balanced accuracy of each name on some texts [name]."""
    return torch.tensor([balanced(name[texts], fires[texts]) for name in says], dtype=torch.float64)


def draw_names(draw: random.Random) -> tuple:
    """More names than texts, and none has anything to do with the feature; one of them is the best, alone."""
    names, half, n_fires = draw.randint(12, 20), draw.randint(9, 12), draw.randint(3, 4)
    while True:
        kinds = [(fires, seen) for seen in (True, False) for fires in [True] * n_fires + [False] * (half - n_fires)]
        draw.shuffle(kinds)
        fires, seen = (torch.tensor(column) for column in zip(*kinds))
        says = torch.stack([flags(draw, 2 * half, 0.5) for _ in range(names)])
        best = scores_on(says, fires, seen).topk(2).values
        if best[0] > best[1] + 0.01:
            return says, fires, seen


def _all_texts(seen: Tensor) -> Tensor:
    return torch.ones_like(seen)


def _chosen_on_all(says: Tensor, fires: Tensor, seen: Tensor) -> tuple[float, float]:
    best = says[scores_on(says, fires, _all_texts(seen)).argmax()]
    return balanced(best[seen], fires[seen]), balanced(best[~seen], fires[~seen])


def _by_accuracy(says: Tensor, fires: Tensor, seen: Tensor) -> tuple[float, float]:
    right = says == fires
    best = right[right[:, seen].double().mean(1).argmax()].double()
    return float(best[seen].mean()), float(best[~seen].mean())


HONEST = FunctionQuestion(
    "q4",
    "two_scores",
    two_scores,
    {
        "The name was chosen on all texts, also on those that should test it: then they are no test.": _chosen_on_all,
        "Each number is the best of all names on its texts. The second should be of the name that was chosen on the "
        "seen texts.": (
            lambda says, fires, seen: [scores_on(says, fires, texts).max().item() for texts in (seen, ~seen)]
        ),
        "The two are the wrong way round, or the name was chosen on the texts that were not seen.": (
            lambda says, fires, seen: two_scores(says, fires, ~seen)
        ),
        "The second number is over all texts; those on which the name was chosen should not be among them.": (
            lambda says, fires, seen: (
                two_scores(says, fires, seen)[0],
                balanced(says[scores_on(says, fires, seen).argmax()], fires),
            )
        ),
        "This is the share of right answers; balanced accuracy counts both sides, firing and silent, by half.": (
            _by_accuracy
        ),
    },
    draw_names,
)


# ---------------------------------------------------------------------- q5: what it does


def raised(decoders: Tensor, gain: Tensor, unembed: Tensor) -> Tensor:
    """decoders [target layer, d_model], what the feature writes into each layer; gain [d_model], of the final norm;
    unembed [token, d_model] -> what it adds to each token's logit beyond what it adds to the mean token's [token]"""
    written = torch.zeros(decoders.shape[1])
    for decoder in decoders:
        written = written + decoder
    logits = torch.stack([(written * gain) @ row for row in unembed])
    return logits - logits.mean()


def draw_decoders(draw: random.Random) -> tuple:
    """The unembedding's rows have a part in common, so that the mean logit is not next to nothing."""
    unembed = normal(draw, draw.randint(9, 14), 8) + normal(draw, 8)
    return normal(draw, draw.randint(2, 5), 8), normal(draw, 8).exp(), unembed


RAISED = FunctionQuestion(
    "q5",
    "raised",
    raised,
    {
        "Only one layer's decoder is there: the feature writes into its own layer and all later ones.": (
            lambda decoders, gain, unembed: raised(decoders[:1], gain, unembed)
        ),
        "The norm's gain is missing: it stands between what is written and the unembedding.": (
            lambda decoders, gain, unembed: raised(decoders, torch.ones_like(gain), unembed)
        ),
        "The mean over the tokens was not taken off. What all logits get alike changes no probability.": (
            lambda decoders, gain, unembed: unembed @ (decoders.sum(0) * gain)
        ),
        "The mean over the layers was taken. What is written adds up in the stream.": (
            lambda decoders, gain, unembed: raised(decoders.mean(0, keepdim=True), gain, unembed)
        ),
        "These are sizes. A token whose logit falls is not promoted: keep the sign.": (
            lambda decoders, gain, unembed: raised(decoders, gain, unembed).abs()
        ),
    },
    draw_decoders,
)


# ---------------------------------------------------------------------- q6: your own state's detector


@cache
def model() -> ik.LanguageModel:
    return ik.load_model("pocket")


@cache
def detectors_of(state: str, layer: int) -> tuple[Tensor, Tensor]:
    """The activations of a layer [token, feature] in sentences, some of them about the state; and on which tokens it
    is named [token]."""
    concept = f"place:{state}"
    about, others = [], []
    for sentence in ik.load_world().sentences(4000, "test"):
        names_it = any(concept in concepts for _, _, concepts in sentence.spans)
        (about if names_it else others).append(sentence)
    (batch,) = graded(model(), about[:N_ABOUT] + others[:N_OTHERS], [concept])
    dictionary = TranscoderFeatures(model(), ik.load_transcoder("pocket"))
    active = next(islice(dictionary.activations(batch.ids), layer, None))
    active[:, 0] = 0  # the transcoder has no features at the begin-of-text token
    return active[batch.real].float(), batch.named.to_dense()[0].bool()


@cache
def aucs(state: str, layer: int = LAYER) -> Tensor:
    """Of each feature of the layer."""
    active, named = detectors_of(state, layer)
    return torch.tensor([ties_count(feature, named, 0.5) for feature in active.T])


def precisions(state: str) -> Tensor:
    """Of each feature, of the tokens on which it fires the share that names the state; 0 for one that never fires."""
    active, named = detectors_of(state, LAYER)
    fires = active > 0
    return fires[named].sum(0) / fires.sum(0).clamp(min=1)


DETECTOR = ValueQuestion(
    "q6",
    "detector",
    lambda state: int(aucs(state).argmax()),
    {
        "This one is the most precise: it fires seldom, and misses most of the tokens that name the state.": (
            lambda state: int(precisions(state).argmax())
        ),
        "This is a feature of layer 0: layers are counted from 0, and layer 1 is asked.": (
            lambda state: int(aucs(state, 0).argmax())
        ),
        "This is a feature of layer 2; layer 1 is asked.": lambda state: int(aucs(state, 2).argmax()),
        "This has the lowest area of all: it fires on the other tokens.": lambda state: int(aucs(state).argmin()),
    },
    lambda student: (variant(student, "state", STATES),),
)


# ---------------------------------------------------------------------- q7: your own feature


@cache
def store() -> ik.FeatureStore:
    return ik.load_features("pocket")


def share_on_word(feature: int, groups: tuple[str, ...] = ("sample",)) -> float:
    """Of all the activation of a feature of layer 0 in its examples of these groups, the share on its word."""
    on_word, in_all = 0.0, 0.0
    examples = store().examples_of(0, feature)
    for group, tokens, activations in zip(examples["group"], examples["tokens"], examples["activations"]):
        for token, activation in zip(tokens, activations):
            if group in groups:
                in_all += float(activation)
                on_word += float(activation) if token.strip() == WORD_OF[feature] else 0.0
    return on_word / in_all


def share_of_texts(feature: int) -> float:
    """Of the examples drawn at random, those in which it is strongest on its word."""
    examples = store().examples_of(0, feature).query("group == 'sample'")
    peaks = [tokens[peak].strip() for tokens, peak in zip(examples["tokens"], examples["peak"])]
    return peaks.count(WORD_OF[feature]) / len(peaks)


SHARE = ValueQuestion(
    "q7",
    "share",
    share_on_word,
    {
        "This is in the strongest texts; those drawn at random are asked.": lambda feature: share_on_word(
            feature, ("top",)
        ),
        "These are texts counted, each alike. Asked is a share of the activation, so a strong text counts more.": (
            share_of_texts
        ),
        "This is of the examples of all groups together: keep those of the group sample.": lambda feature: (
            share_on_word(feature, ("top", "sample", "held_out", "non_activating", "hard_negative"))
        ),
        "This is in the group held_out; the group sample is asked.": lambda feature: share_on_word(
            feature, ("held_out",)
        ),
    },
    lambda student: (variant(student, "feature", list(WORD_OF)),),
)

QUESTIONS = [PARTS, DETECTION, AUC, HONEST, RAISED, DETECTOR, SHARE]
