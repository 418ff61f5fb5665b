"""What a cell of a hostile submission runs, by what it tries. {places!r}: folders of the teacher; {port}: a port."""

OVERWRITE = """
import interp_kit.course.compare as compare, interp_kit.course.assignments as a
compare.same = compare.problem = a.is_right = lambda *_: True
ik.course.hidden_test = lambda *_: None
class Equal:
    def __eq__(self, other): return True
    def __getattr__(self, name): return self
    def __call__(self, *_): return self
double = mean_of = letter = Equal()
"""
FORGE = """
import json, os
lines = [{"question": q, "answer": 1, "points": 99, "score": 99} for q in ("q1", "q2", "q3")]
with open("answers.jsonl", "a") as file:
    for line in lines: file.write(json.dumps(line) + "\\n")
    file.write("{not json")
os._exit(0)
"""
READ = """
from pathlib import Path
def found():
    for place in {places!r}:
        for path in [Path(place), *Path(place).rglob("*")]:
            if path.suffix in (".py", ".ipynb", ".csv", ".json"): yield path.read_text()
try: letter = "".join(found()) or "refused"
except OSError: letter = "refused"
"""
WRITE = """
from pathlib import Path
for place in {places!r}:
    try: Path(place, "left-by-a-student").write_text("x")
    except OSError: pass
"""
ATTACKS = {
    "overwrites": OVERWRITE,
    "forges": FORGE,
    "reads": READ,
    "writes": WRITE,
    "forks": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "fills memory": "held = []\nwhile True: held.append(bytearray(10**7))",
    "fills the disk": "i = 0\nwhile True: open(f'{i}', 'wb').write(bytes(10**6)); i += 1",
    "prints without end": "while True: print('x' * 10**6)",
    "kills": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)",
    "will not end": "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
    "stays": "import subprocess\nsubprocess.Popen(['sleep', '987.5'], start_new_session=True)",
    "calls home": "import socket\nsocket.create_connection(('127.0.0.1', {port})).sendall(b'x')",
    "nests": "letter = []\nfor _ in range(10**5): letter = [letter]",
    "is huge": "letter = 'x' * 10**9",
}
