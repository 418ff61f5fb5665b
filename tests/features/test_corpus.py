"""Names, words, numbers and signs."""

import weakref

from interp_kit.features.corpus import Corpus


def corpus(*texts):
    return Corpus([[" " + word for word in text.split(" ")] for text in texts])


def test_names_stay_together():
    text = (" The", " Isle", " of", " Man", " and", " Salt", " Lake", " City", ",", " 1", "84", "5", ".", "\n")
    words = Corpus([text]).words(text)
    assert "Salt Lake City" in " ".join(words.pieces)
    assert words.pieces[-3:] == ["1845", ".", "'\\n'"]
    assert words.read[6].endswith("Salt Lake") and words.read[7].endswith("Salt Lake City")


def test_a_sentences_first_word_is_no_part_of_a_name():
    words = corpus("For Dallas it is", "it is Dallas there", "in Dallas it is", "New York is", "in New York")
    assert words.words((" For", " Dallas", " it"))[0][0] == "Dallas"
    assert words.words((" New", " York", " is"))[0][0] == "New York"


def test_what_goes_along():
    texts = ["Dallas in Texas"] * 4 + ["Dallas here"] * 4 + [f"word{i} there" for i in range(90)]
    words = corpus(*[f"{t} x{i}" for i, t in enumerate(texts)])
    assert words.cooccurrence("Dallas")["Texas"] == 4 / (8 + 8)
    assert words.cooccurrence("Texas")["Dallas"] == 4 / (4 + 8)
    assert words.is_informative("Texas") and not words.is_informative("there")


def test_broken_bytes_and_empty_tokens():
    text = ("<0xE6>", "", " a", "  ", "\t")
    words = Corpus([text]).words(text)
    assert len(words.of_token) == len(words.read) == 5
    assert Corpus([("",)]).words(("",)).pieces == []


def test_a_corpus_ends_with_its_last_name():
    """What it has worked out is kept with it, and not for good: the corpus of a store takes 100 MB."""
    words = corpus("Waco is in Texas", "Dallas is in Texas")
    assert words.words((" Waco", " is"))[0] and words.cooccurrence("Waco") is words.cooccurrence("Waco")
    gone = weakref.ref(words)
    del words
    assert gone() is None
