"""The fonts of the static pictures: the part of DejaVu that prompts and labels need, small enough to ship.

python -m recipes.fonts     writes interp_kit/widgets/fonts/ again, from the DejaVu that matplotlib carries

Chinese, Japanese, Korean and emoji are not among them: such a sign is drawn as an empty box.
"""

import json
import shutil
from pathlib import Path

import matplotlib
from fontTools import subset
from fontTools.ttLib import TTFont

FONTS = Path(__file__).parent.parent / "interp_kit" / "widgets" / "fonts"
LATIN = ["20-17F", "2010-2027", "2030-203A", "20AC", "2122", "FFFD"]
COMMON = LATIN + [
    "180-24F", "2B0-2DD", "300-345", "370-3FF", "400-45F", "490-491", "1EA0-1EF9",  # Latin, marks, Greek, Cyrillic
    "2070-2094", "2190-2195", "21B5", "21D0-21D4", "21E5", "2200-220F", "2211-221E", "2227-222B", "2248", "2260-2265",
    "23CE", "2423", "2500-2503", "250C-254B", "2581-2593", "25A0-25AB", "25B2-25CF", "2605-2606", "2713-2717",
]  # fmt: skip
PARTS = {"DejaVuSans.ttf": COMMON, "DejaVuSansMono.ttf": COMMON, "DejaVuSans-Bold.ttf": LATIN}


def build() -> None:
    """Writes the fonts, their licence, and the runs of signs that both fonts for running text have."""
    source = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    FONTS.mkdir(exist_ok=True)
    for name, ranges in PARTS.items():
        options = ["--no-hinting", "--layout-features=", "--name-IDs=0,1,2,4,6,13,14"]
        subset.main([str(source / name), f"--unicodes={','.join(ranges)}", f"--output-file={FONTS / name}", *options])
    shutil.copy(source / "LICENSE_DEJAVU", FONTS / "LICENSE_DEJAVU")
    fonts = [TTFont(FONTS / f"DejaVuSans{kind}.ttf") for kind in ("", "Mono")]
    both = set.intersection(*(set(font.getBestCmap() or {}) for font in fonts))
    (FONTS / "covers.json").write_text(json.dumps(_runs(sorted(both))) + "\n", encoding="utf-8")


def _runs(signs: list[int]) -> list[list[int]]:
    """[first, last] of each run of numbers that follow one another."""
    runs: list[list[int]] = []
    for sign in signs:
        if runs and runs[-1][1] == sign - 1:
            runs[-1][1] = sign
        else:
            runs.append([sign, sign])
    return runs


if __name__ == "__main__":
    build()
