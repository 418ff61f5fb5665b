"""The Language Interpretability Tool from the command line (in a notebook: `ik.open_lit`).

python -m interp_kit.lit                      make the environment that it runs in, once
python -m interp_kit.lit MODEL [PROMPT ...]   serve a model until Ctrl-C; `make lit` does both
"""

import sys

import interp_kit as ik

from .lenses.lit.environment import make_lit_environment

PROMPTS = ["The capital of Texas is", "The capital of the state containing Dallas is", "Dallas is a city in"]


def main(name: str | None = None, *prompts: str) -> None:
    if name is None:
        print(f"LIT is ready: {make_lit_environment()}")
        return
    with ik.open_lit(ik.load_model(name), list(prompts) or PROMPTS) as server:
        print(f"LIT on {name}: {server.url}\nCtrl-C ends it.", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(str(error))
