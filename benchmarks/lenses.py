"""When was each lens wrong? 100 questions about cities that training never asked, whose truth is known.

    python benchmarks/lenses.py [questions]         about 15 minutes on one core

Every lens makes its claim (which word, which step, how sure) and is graded; the tables of README and lesson 10 come
from here.
"""

import sys

import pandas as pd
import torch

import interp_kit as ik

N_TEXTS = 150  # that the Jacobian lens is fitted on


def main(n: int = 100):
    torch.set_num_threads(1)
    model, transcoder, world = ik.load_model("pocket"), ik.load_transcoder("pocket"), ik.load_world()
    jacobian = ik.lenses.fit_jacobian_lens(model, [s.text for s in world.sentences(N_TEXTS, "train")])
    features, labels = ik.load_features("pocket"), ik.load_labels("pocket")
    grades = ik.studies.grade_lenses(model, world, transcoder, features, labels, n, jacobian=jacobian)
    pd.set_option("display.width", 200, "display.max_colwidth", 90)
    print(grades, "\n")
    print(grades.table[["claim", "wrong"]].to_string())
    print(f"\nnone was right: {(~grades.answers).all(axis=1).sum()}, all were: {grades.answers.all(axis=1).sum()}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
