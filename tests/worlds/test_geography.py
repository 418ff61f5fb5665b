import random

import pytest
from tiny import tiny_tokenizer

import interp_kit as ik
from interp_kit.worlds import Sentence, Slot, fill, token_concepts
from interp_kit.worlds.geography import TWO_HOP


@pytest.fixture(scope="module")
def world():
    return ik.load_world("geography")


def test_the_tables(world):
    assert len(world.states) == 50 and len(world.countries) == 90
    assert world.facts["Texas"]["capital"] == "Austin" and world.facts["Texas"]["abbreviation"] == "TX"
    assert (
        world.facts["France"] | {"capital": "Paris", "currency": "Euro", "language": "French"} == world.facts["France"]
    )
    assert world.place_of["Dallas"] == "Texas" and world.place_of["Lyon"] == "France"
    assert world.cities["city"].is_unique and world.cities.groupby("place").size().min() >= 5
    answers = [value for facts in world.facts.values() for value in facts.values()]
    assert all(answers), "an empty fact"
    assert not set(world.place_of) & set(world.facts), "a city with the name of a place has two answers"


def test_sources_and_licence_stand_beside_the_tables():
    from interp_kit.storage.shipped import data_folder

    about = (data_folder() / "worlds" / "geography" / "README.md").read_text()
    assert "GeoNames" in about and "CC BY 4.0" in about and "BSD" in about


def test_held_out_pairs_are_never_told(world):
    assert ("Dallas", "capital") in world.held_out and len(world.held_out) >= 300
    rng = random.Random(0)
    for _ in range(20_000):
        sentence = world.sentence(rng)
        names = [name for _, _, concepts in sentence.spans for name in concepts]
        city = next((n[5:] for n in names if n.startswith("city:")), None)
        for relation in (n[9:] for n in names if n.startswith("relation:")):
            mentioned = city and city in sentence.text
            assert not (mentioned and (city, relation) in world.held_out), sentence.text


def test_questions_end_where_the_answer_begins(world):
    question = next(q for q in world.questions(True) if (q.city, q.relation) == ("Dallas", "capital"))
    assert question.prompt == "The capital of the state containing Dallas is" and question.answer == "Austin"
    assert len(world.questions(True)) == len(world.held_out)
    assert len(world.questions(True)) + len(world.questions(False)) == len(world.pairs)
    assert all(world.facts[world.place_of[q.city]][q.relation] == q.answer for q in world.questions(True, TWO_HOP[2]))


def test_test_sentences_are_no_training_sentences(world):
    train = {s.text for s in world.sentences(3000, "train")}
    assert not train & {s.text for s in world.sentences(1000, "test")}
    assert world.sentences(50, "test") == world.sentences(50, "test")


def test_fill_knows_where_its_slots_stand():
    sentence = fill(
        "The {r} of {p} is {a}.", r=Slot("capital", ("relation:capital",)), p=Slot("Ohio"), a=Slot("Columbus")
    )
    assert sentence.text == "The capital of Ohio is Columbus."
    assert [sentence.text[a:b] for a, b, _ in sentence.spans] == ["capital", "Ohio", "Columbus"]
    assert sentence.spans[0][2] == ("relation:capital",)


def test_a_concept_belongs_to_the_token_that_completes_it():
    sentence = Sentence("the capital of Texas", ((4, 20, ("a:b",)), (0, 3, ("the",))))
    ids, concepts = token_concepts(sentence, tiny_tokenizer())
    assert len(ids) == 4
    assert concepts == [{"the"}, set(), set(), {"a:b"}]


def test_an_unknown_world():
    with pytest.raises(ValueError, match="known worlds: geography"):
        ik.load_world("atlantis")


@pytest.fixture
def tables(tmp_path):
    """A small world of one's own: no Dallas, no countries but one."""
    states = "place,capital,motto\n" + "".join(f"State{i},Capital{i},Motto{i}\n" for i in range(8))
    cities = "city,place\n" + "".join(f"City{i},State{i % 8}\n" for i in range(40)) + "Elsewhere,Land\n"
    texts = {"states": states, "countries": "place,capital,language\nLand,Main,Talk\n", "cities": cities}
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


def test_a_world_of_ones_own(tables):
    world = ik.load_world("geography", folder=tables)
    assert world.facts["State3"] == {"capital": "Capital3", "motto": "Motto3"} and world.place_of["City3"] == "State3"
    assert len(world.held_out) >= 2 and world.held_out <= set(world.pairs)
    for split in ("train", "test"):
        assert {s.text for s in world.sentences(200, split)}
    assert all(q.city in world.place_of for q in world.questions(held_out=True))


@pytest.mark.parametrize(
    ("file", "was", "now", "message"),
    [
        ("cities", "city,place", "town,place", "cities.csv has no column 'city', only 'town', 'place'"),
        ("states", "place,capital,motto", "place,river,motto", "states.csv needs two relations beside 'place'"),
        ("states", "State5,Capital5,", "State5,,", "states.csv has no 'capital' in line 7"),
        ("states", "State5,", "State4,", "'State4' is more than one place"),
        ("cities", "City7,State7", "City6,State7", "'City6' is more than one city"),
        ("cities", "City7,State7", "State3,State7", "'State3' is more than one city or place"),
        ("cities", "City7,State7", "City7,Atlantis", "names the place 'Atlantis', which states.csv and countries.csv"),
    ],
)
def test_tables_that_do_not_fit_are_named(tables, file, was, now, message):
    path = tables / f"{file}.csv"
    path.write_text(path.read_text().replace(was, now, 1))
    with pytest.raises(ValueError, match=message):
        ik.load_world("geography", folder=tables)


def test_too_few_facts_and_an_unknown_split(tables, world):
    (tables / "cities.csv").write_text("city,place\nCity0,State0\n")
    with pytest.raises(ValueError, match="too small: none of 2 facts"):
        ik.load_world("geography", folder=tables)
    with pytest.raises(ValueError, match="expected 'train' or 'test'"):
        world.sentences(1, "held-out")


def test_why_questions_know_what_decides(world):
    table = world.why_questions(60)
    assert table.equals(world.why_questions(60)) and list(table["about"][:2]) == ["city", "relation"]
    for row in table.itertuples():
        facts = world.facts[row.place]
        assert (row.city, row.relation) in world.held_out and world.place_of[row.city] == row.place
        assert row.city in row.prompt and row.relation in row.prompt and row.target == " " + facts[row.relation]
        assert row.target[:3] != row.contrast[:3] and row.matters == [row.city if row.about == "city" else row.relation]
        others = [f.get(row.relation) for f in world.facts.values()] if row.about == "city" else facts.values()
        assert row.contrast[1:] in others
