"""Thirty submissions of problem set 1: blank ones, right ones, each known mistake, attacks, accidents, mixtures.

`CLASS` says of each what it changes in a right one, what it should get, and what the notes should say.
"""

from dataclasses import dataclass, field

import nbformat
from course.grading.attacks import ATTACKS

from interp_kit.course.assignments import assignments_folder, grade_id, read_notebook

NAME = "ps1_residual_stream"
POINTS = {"q1": 2, "q2": 2, "q3": 3, "q4": 2, "q5": 2, "q6": 2, "q7": 1}
TEXT = "The lens reads what is written in the direction of a token; patching hands the stream on."
HEADS = 'parts = ik.lenses.decompose(model, prompt, answer, contrast=" Boston")\nfrom_heads = float({})'
OTHER_WAYS = {  # right, written otherwise than the solution
    "q1": "def streams(embedding, attention, mlp):\n    rows = [embedding]\n    for a, m in zip(attention, mlp):\n"
    "        rows.append(rows[-1] + a + m)\n    return rows",
    "q2": "def rms_norm(stream, gain, eps):\n    import torch.nn.functional as F\n"
    "    return F.rms_norm(stream, gain.shape, gain, eps)",
    "q3": "def contributions(parts, gain, towards):\n    whole = parts.sum(0)\n"
    "    return ((parts * gain) @ towards / whole.square().mean() ** 0.5).numpy()",
    "q4": "def decided(likeliest, answer):\n    if likeliest[-1] != answer:\n        return -1\n"
    "    wrong = [i for i, token in enumerate(likeliest) if token != answer]\n    return wrong[-1] + 1 if wrong else 0",
    "q5": "def moved_from(pattern, values):\n"
    "    return [int((p[-1] * (v ** 2).sum(1).sqrt()).argmax()) for p, v in zip(pattern, values)]",
}
MISTAKES = (  # the first mistake of each question, the second, ...: code, and how the hint begins
    {
        "q1": ("def streams(e, a, m):\n    return torch.cat([0 * e[None], (a + m).cumsum(0)])", "The embedding is"),
        "q2": ("def rms_norm(x, g, eps):\n    return x / (x.pow(2).mean() + eps).sqrt() * g", "The mean is taken over"),
        "q3": ("def contributions(p, g, t):\n    return (p / p.pow(2).mean(-1, True).sqrt() * g) @ t", "Each part is"),
        "q4": ("def decided(tokens, answer):\n    return tokens.index(answer)", "This is the first layer"),
        "q5": ("def moved_from(pattern, values):\n    return pattern[:, -1].argmax(-1)", "This is where each head"),
        "q6": (HEADS.format('parts.sources.filter(like="MLP", axis=0).to_numpy().sum()'), "This is what the MLPs"),
        "q7": ("arrived = float(patched.table.loc[4].iloc[-2])", "This is what still stands"),
    },
    {
        "q1": ("def streams(e, a, m):\n    return torch.cat([e[None], a + m])", "This is what each layer"),
        "q2": (
            "def rms_norm(x, g, eps):\n    x = x - x.mean(-1, keepdim=True)\n"
            "    return x / (x.pow(2).mean(-1, True) + eps).sqrt() * g",
            "This subtracts the mean",
        ),
        "q3": ("def contributions(p, g, t):\n    return p @ t", "The norm is missing"),
        "q4": ("def decided(tokens, a):\n    return len(tokens) - 1 if tokens[-1] == a else -1", "This is the last"),
        "q5": ("def moved_from(pattern, values):\n    return values.norm(dim=-1).argmax(-1)", "This is where the long"),
        "q6": (HEADS.format("parts.sources.to_numpy().sum()"), "This is the whole"),
        "q7": ("arrived = float(patched.table.loc[3].iloc[-1])", ""),
    },
    {
        "q1": ("def streams(e, a, m):\n    return torch.cat([e[None], e + m.cumsum(0)])", "Only the MLPs' part"),
        "q2": ("def rms_norm(x, g, eps):\n    return x / x.pow(2).mean(-1, True).sqrt() * g", "eps is missing"),
        "q3": (
            "def contributions(p, g, t):\n    return p / p.sum(0).pow(2).mean().sqrt() @ t",
            "The norm's gain is missing",
        ),
        "q4": (
            "def decided(tokens, answer):\n    n = len(tokens)\n    while n and tokens[n - 1] == answer:\n"
            "        n -= 1\n    return n if n < len(tokens) else 0",
            "Where the answer is not there",
        ),
        "q5": (
            "def moved_from(pattern, values):\n    return (pattern[:, 0] * values.norm(dim=-1)).argmax(-1)",
            "This is of the first query",
        ),
        "q6": (HEADS.format('parts.sources.filter(like="head", axis=0).sum(axis=1).max()'), "This is one head"),
        "q7": ("arrived = float(patched.table.loc[5].iloc[-1])", ""),
    },
)


@dataclass
class Submission:
    """answers: of cells, in place of the right ones. without: cells that are gone. extra: a cell at the end. points: of
    each question that it should get. hints: how the student's begin. notes: what the teacher's contain. name: of the
    notebook. blank: as it was released."""

    points: dict[str, float]
    answers: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    extra: str = ""
    hints: dict[str, str] = field(default_factory=dict)
    notes: str = ""
    name: str = f"{NAME}.ipynb"
    blank: bool = False


def only(*questions):
    return {name: most if name in questions else 0 for name, most in POINTS.items()}


def mistaken(number, questions=tuple(POINTS)):
    """With these questions wrong, in the way of that number."""
    chosen = {name: MISTAKES[number][name] for name in questions}
    right = [name for name in POINTS if name not in questions]
    codes, hints = (
        {name: code for name, (code, _) in chosen.items()},
        {name: hint for name, (_, hint) in chosen.items()},
    )
    return Submission(only(*right), codes, hints=hints)


def attack(name, notes=""):
    """Everything wrong, and an attack after it."""
    wrong = {question: code for question, (code, _) in MISTAKES[0].items()}
    extra = ATTACKS[name].replace("{places!r}", "['/tmp', '/root', '/home']").replace("{port}", "9")
    names = dict(double="streams", mean_of="rms_norm", letter="arrived")
    for theirs, ours in names.items():
        extra = extra.replace(theirs, ours)
    return Submission(only(), wrong, extra=extra, notes=notes)


CLASS = {
    "ada": Submission(only(*POINTS)),
    "boris": Submission(only(*POINTS), OTHER_WAYS),
    "chen": Submission(only(*POINTS), OTHER_WAYS),
    "dmitri": Submission(only(*POINTS)),
    "emma": Submission(only(*POINTS)),
    "blank": Submission(only(), blank=True),
    "blank too": Submission(only(), blank=True),
    "mistake one": mistaken(0),
    "mistake two": mistaken(1),
    "mistake three": mistaken(2),
    "farid": mistaken(0, ("q2", "q5")),
    "grace": mistaken(1, ("q3", "q6", "q7")),
    "hugo": mistaken(2, ("q1", "q4")),
    "irina": mistaken(0, ("q3", "q4", "q7")),
    "juan": mistaken(1, ("q1", "q2")),
    "half done": Submission(
        only("q1", "q2"), {"q3": "def contributions(parts, gain, towards):\n    return parts @", "q4": "", "q5": "pass",
        "q6": "from_heads = ...", "q7": "arrived = None"}, notes="q3 SyntaxError",
    ),
    "deleted": Submission(only("q1", "q2", "q4", "q5", "q6", "q7"), without=("q3",), notes="q3 missing"),
    "renamed": Submission(only(*POINTS), name="ps1 (final).ipynb", notes="the notebook is called ps1 (final).ipynb"),
    "endless": Submission(only(*POINTS), extra="while True: pass"),
    "ends": Submission(
        only(*(set(POINTS) - {"q3"})), {"q3": "import os\nos._exit(0)"},
        notes="q3 it ended the whole process, or would not end",
    ),
    "overwrites": attack("overwrites"),
    "forges": attack("forges"),
    "reads": attack("reads"),
    "writes": attack("writes"),
    "forks": attack("forks", "it "),
    "fills memory": attack("fills memory", "it took over 2,048 MB of memory"),
    "fills the disk": attack("fills the disk", "it wrote over 100 MB"),
    "kills": attack("kills"),
    "will not end": attack("will not end"),
    "calls home": attack("calls home"),
}  # fmt: skip


def written(student, released):
    """The student's notebook. released: as it was handed out."""
    mine, notebook = CLASS[student], nbformat.from_dict(released)
    if mine.blank:
        return notebook
    solved = read_notebook(assignments_folder() / "source" / NAME / f"{NAME}.ipynb")
    right = {grade_id(cell): cell.source for cell in solved.cells if grade_id(cell) in POINTS}
    for cell in notebook.cells:
        cell.source = cell.source.replace('STUDENT = "..."', f'STUDENT = "{student}"')
        if grade_id(cell) in POINTS:
            cell.source = mine.answers.get(grade_id(cell), right[grade_id(cell)])
        if grade_id(cell) == "q8":
            cell.source = TEXT
    notebook.cells = [cell for cell in notebook.cells if grade_id(cell) not in mine.without]
    if mine.extra:
        notebook.cells.append(nbformat.v4.new_code_cell(mine.extra))
    return notebook
