import random
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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


# ---------------------------------------------------------------------- tables from anywhere


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cities.csv is empty"),
        (b"\n\n", "cities.csv is empty"),
        (b"city,place\nCity0\n", "cities.csv, line 2: has 1 cells, expected 2"),
        (b"city,place\n\nCity0,State0,more\n", "cities.csv, line 3: has 3 cells, expected 2"),
        (b"city,place,place\n", "cities.csv, line 1: two columns are named 'place'"),
        ("city,place\nZürich,State0\n".encode("latin-1"), "cities.csv, line 2: byte 0xfc is not UTF-8"),
        ("city,place\n".encode("utf-16"), "cities.csv, line 1: is in UTF-16"),
        (b"city,place\nA\0,State0\n", "cities.csv, line 2: holds a zero byte"),
        (b'city,place\n"A,State0\n', "cities.csv, line 2: is no row of a CSV file"),
        (b'city,place\n"A"b,State0\n', "cities.csv, line 2: is no row of a CSV file"),
        (b'city,place\n"A\nB",State0\n', "cities.csv, line 2: 'A.nB' has white space around it, or line breaks"),
        (b"city,place\nA, State0\n", "cities.csv, line 2: ' State0' has white space around it"),
        (b"city,place\n" + b"A" * 200_000 + b",State0\n", "cities.csv, line 2: (is no row|a cell has 200,000)"),
        (b"city,place\n" + b"A" * 300 + b",State0\n", "cities.csv, line 2: a cell has 300 characters"),
        (b"city;place\nA;State0\n", "no column 'city', only 'city;place'"),
        (b'city,place\nA,"State0"\n\nB,\n', "cities.csv has no 'place' in line 4"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tables, content, message):
    (tables / "cities.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ik.load_world("geography", folder=tables)


def test_tables_as_spreadsheets_write_them(tables):
    path = tables / "states.csv"
    path.write_bytes(("\ufeff" + path.read_text().replace("Motto1", '"Motto, one"')).replace("\n", "\r\n").encode())
    world = ik.load_world("geography", folder=str(tables))
    assert world.facts["State1"]["motto"] == "Motto, one" and list(world.states.columns)[0] == "place"


def test_folders_that_are_none(tables, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        ik.load_world("geography", folder=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        ik.load_world("geography", folder=tables / "cities.csv")
    (tables / "cities.csv").unlink()
    with pytest.raises(FileNotFoundError, match="there is no file .*cities.csv"):
        ik.load_world("geography", folder=tables)
    (tables / "cities.csv").mkdir()
    with pytest.raises(ValueError, match="is a folder, expected a file"):
        ik.load_world("geography", folder=tables)
    for name in ("../geography", "", None, ["geography"], "geography/"):
        with pytest.raises(ValueError, match="known worlds: geography"):
            ik.load_world(name)


def test_a_table_too_large_is_refused_before_it_is_read(tables, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=100, total=100))
    with pytest.raises(MemoryError, match="reading .*states.csv needs about"):
        ik.load_world("geography", folder=tables)


def test_a_world_without_contrasts_or_stories_is_said_to_be_too_small(tables):
    states = "place,capital,motto\n" + "".join(f"State{i},Same{i},Same{i}\n" for i in range(8))
    (tables / "states.csv").write_text(states)
    with pytest.raises(ValueError, match="no contrast for question"):
        ik.load_world("geography", folder=tables).why_questions(3)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_tables_are_refused_with_words_or_tell_sentences(tables, data):
    originals = {path: path.read_bytes() for path in sorted(tables.glob("*.csv"))}
    path = data.draw(st.sampled_from(list(originals)))
    raw = bytearray(originals[path])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(["cut", "byte", "line", "text"]))
        if kind == "cut":
            del raw[at : at + data.draw(st.integers(1, 400))]
        elif kind == "byte":
            raw[at] = data.draw(st.integers(0, 255))
        elif kind == "line":
            raw[at:at] = bytes(raw).splitlines(keepends=True)[-1] if raw.strip() else b""
        else:
            raw[at:at] = data.draw(st.text(max_size=5)).encode("utf-8", "replace")
        raw = raw or bytearray(b" ")
    try:
        path.write_bytes(raw)
        world = ik.load_world("geography", folder=tables)
        texts = [s.text for split in ("train", "test") for s in world.sentences(20, split)]
        assert all(isinstance(text, str) and text for text in texts) and world.questions(held_out=True)
    except ValueError as error:
        assert str(tables) in str(error) or "world" in str(error)
    finally:
        for original, content in originals.items():
            original.write_bytes(content)
