"""nbgrader reads this when it is started in this folder: how students' notebooks are made of source/."""

c = get_config()  # noqa: F821  nbgrader puts it here

c.CourseDirectory.course_id = "interp_kit"
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}
c.ClearSolutions.text_stub = "*...*"
c.ExecutePreprocessor.timeout = 60  # seconds a cell
