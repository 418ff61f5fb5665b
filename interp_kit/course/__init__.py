"""What a course needs: puzzles that check themselves, predictions that are kept, assignments and their grading.

ik.course.check("topk", my_topk)             tries a function on random input, and draws what came out
ik.course.predict("austin", "Which layer?")  a box that keeps what was predicted
ik.course.variant("ada", "q4", cities)       which variant of a question is a student's

For teachers, on the command line: python -m interp_kit.course grade SUBMISSIONS OUT.

`__init__.pyi` lists the names. Each is imported when it is first used: the process in which a submission runs starts
without what it does not need.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
