"""What needs a known truth, or a series of trainings: which concepts are recovered, how mixed a unit is, which lens is
wrong when."""

from .frontier import Frontier, frontier
from .lens_grading import LensGrades, grade_lenses
from .middle_hop import hop_in_model, middle_hop
from .polysemanticity import Polysemanticity, polysemanticity
from .recovery import Recovery, recover_concepts
from .superposition import ToySuperposition, toy_superposition
from .two_hop import two_hop_accuracy

__all__ = [
    "Frontier", "LensGrades", "Polysemanticity", "Recovery", "ToySuperposition", "frontier", "grade_lenses",
    "hop_in_model", "middle_hop", "polysemanticity", "recover_concepts", "toy_superposition", "two_hop_accuracy",
]  # fmt: skip
