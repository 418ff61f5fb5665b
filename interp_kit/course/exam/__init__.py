"""An exam on a world that nobody has written about: fresh names, a fresh model, questions of each student's own."""

from .make import exam_questions, make_exam

__all__ = ["exam_questions", "make_exam"]
