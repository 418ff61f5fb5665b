"""An exam is another one for each seed and each student; its key grades it, and nothing that is committed solves it."""

import re

import nbformat
import pytest
from course.grading.classroom import save

from interp_kit.course import exam
from interp_kit.course.__main__ import main
from interp_kit.course.assignments import assignments_folder, load_assignment
from interp_kit.course.compare import same
from interp_kit.course.exam import exam_questions, make_exam, world
from interp_kit.course.grading.grade import grade
from interp_kit.course.questions import answer_of

STUDENTS = ["ada", "Bob", "eve"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An exam for three, on a model that was trained for a moment."""
    place = tmp_path_factory.mktemp("exam") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "STEPS", 250)
        patch.setattr(world, "TRANSCODER_STEPS", 100)
        make_exam("spring", STUDENTS, place)
    return place


def questions(place):
    return exam_questions(place / "key" / "questions" / "exam.json")


def answers(place, student):
    return {each.id: each.solution(*each.inputs(student)) for each in questions(place)}


def answered(place, student, lines):
    """The student's notebook with these lines in its cells."""
    notebook = nbformat.read(place / "students" / student / "exam" / "exam.ipynb", 4)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        cell.source = lines.get(name, cell.source)
    return notebook


def test_a_world_is_the_seeds_own():
    one, other = world.invent("spring", 30), world.invent("autumn", 30)
    assert one == world.invent("spring", 30) and len(one.state_of) >= 30
    assert not set(one.state_of) & set(other.state_of) and len(set(one.capital_of.values())) == world.N_STATES
    assert len(world.invent("spring", 77).state_of) >= 77


def test_each_student_has_questions_of_their_own(place):
    texts = {name: answered(place, name, {}).cells for name in STUDENTS}
    prompts = {re.search('prompt = "(.*)"', cells[1].source)[1] for cells in texts.values()}
    assert len(prompts) == 3
    assert len({str(answers(place, name)) for name in STUDENTS}) == 3
    for name in STUDENTS:
        for each in questions(place):
            right, mistakes = each.solution(*each.inputs(name)), list(each.mistakes.values())
            given = [answer_of(mistake, each.inputs(name)) for mistake in mistakes]
            assert sum(value is not None for value in given) >= 1
            assert not any(same(value, right) for value in given if value is not None)


def test_students_get_no_answer(place):
    files = [path for path in (place / "students").rglob("*") if path.is_file()]
    assert {path.name for path in files if path.suffix in (".py", ".md")} == set()
    text = "".join(path.read_text() for path in files if path.suffix in (".json", ".ipynb", ".yaml"))
    for name in STUDENTS:
        found = answers(place, name)
        assert str(found["q3"]) not in text and str(found["q4"]) not in text


@pytest.mark.long
def test_the_key_grades_it_and_what_is_committed_does_not_solve_it(place, tmp_path):
    """Right ones get all; the neighbour's answers hardly any; all solutions of the problem sets, run on the
    exam's model and prompt, at most a tenth."""
    class_ = tmp_path / "class"
    right = {name: {q: f"{q} = {value!r}" for q, value in answers(place, name).items()} for name in STUDENTS}
    save(class_ / "ada" / "exam" / "exam.ipynb", answered(place, "ada", right["ada"]))
    save(class_ / "Bob" / "exam" / "exam.ipynb", answered(place, "Bob", right["ada"]))
    save(class_ / "eve" / "exam" / "exam.ipynb", answered(place, "eve", {}))
    save(class_ / "stranger" / "exam" / "exam.ipynb", answered(place, "eve", right["eve"]))
    committed = sorted((assignments_folder() / "source").glob("*/*.ipynb"))
    for path in [path for path in committed if not path.parent.name.endswith("_ru")]:
        eves = place / "students" / "eve" / "exam"
        folder = class_ / "eve" / "exam"
        pasted = {f"q{n}": f"try:\n    q{n} = {each.answer}\nexcept NameError:\n    pass"
                  for n, each in enumerate(load_assignment(path.parent.name).questions, 1)}  # fmt: skip
        notebook = answered(place, "eve", pasted)
        solutions = [
            cell
            for cell in nbformat.read(path, 4).cells
            if "BEGIN SOLUTION" in cell.source and cell.cell_type == "code"
        ]
        for number, cell in enumerate(solutions):
            cell["id"] = f"solution-{number}"
        notebook.cells[2:2] = solutions
        student = folder.parents[1] / f"eve-{path.parent.name}" / "exam"
        save(student / "exam.ipynb", notebook)
        for part in ("model", "transcoder"):
            (student / part).mkdir()
            for file in (eves / part).iterdir():
                (student / part / file.name).write_bytes(file.read_bytes())
    results = {result.student: result for result in grade(class_, tmp_path / "grades", 1, place / "key")}
    points = {name: sum(each.points or 0 for each in result.questions) for name, result in results.items()}
    most = sum(each.most for each in results["ada"].questions)
    assert points["ada"] == most - 6 and points["eve"] == 0
    assert points["Bob"] <= 0.2 * most and points["stranger"] == 0
    assert any("there is no exam for 'stranger'" in each.hint for each in results["stranger"].questions)
    for name in points:
        assert not name.startswith("eve-") or points[name] <= 0.1 * most


def test_the_conversation_is_about_the_students_own_graph(place):
    for name in STUDENTS:
        text = (place / "oral" / f"{name}.md").read_text()
        assert text.count("\n\n1. ") == text.count("\n\n3. ") == 1 and re.search(r"from 0\.\d\d to 0\.\d\d", text)


@pytest.mark.parametrize(
    ("students", "words"),
    [([], "each once"), (["ada", "Ada"], "each once"), (["a/b"], "cannot be the name"), ([".."], "cannot be the name")],
)
def test_names_that_cannot_be(students, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        make_exam("s", students, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_it_may_not_go(tmp_path):
    (tmp_path / "thesis").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already"):
        make_exam("s", ["ada"], tmp_path)
    with pytest.raises(ValueError, match="lies in a clone of the kit"):
        make_exam("s", ["ada"], assignments_folder() / "mine")


def test_the_command(tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(exam, "make_exam", lambda seed, names, out: made.append((seed, names)))
    (tmp_path / "names.txt").write_text("ada\n\nbob\n")
    for students in ("2", str(tmp_path / "names.txt")):
        with pytest.raises(SystemExit) as ended:
            main(["exam", str(tmp_path / "out"), "--seed", "s", "--students", students])
        assert ended.value.code == 0
    assert made == [("s", ["student-01", "student-02"]), ("s", ["ada", "bob"])]
    assert "2 exams" in capsys.readouterr().out


def test_another_file_is_no_key(tmp_path):
    (tmp_path / "exam.json").write_text("[]")
    with pytest.raises(ValueError, match="is not the key of an exam"):
        exam_questions(tmp_path / "exam.json")
