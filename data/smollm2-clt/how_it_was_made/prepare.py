"""Prompts to sample from and prose rows, as token ids, for train.py. Run in a checkout of the kit."""
import json, random, sys
import numpy as np
import interp_kit as ik
from recipes.prose import Prompts, held_out

N, P = 81920, 96
model = ik.load_model("smollm2")
tk = model.tokenizer
enc = lambda t: tk(t, add_special_tokens=False)["input_ids"]
prose = [json.loads(l)["text"] for l in open("build/smollm2/prose.jsonl", encoding="utf-8")]
train, held = [t for t in prose if not held_out(t)], [t for t in prose if held_out(t)]

def rows(texts):
    out = []
    for ids in tk(texts, add_special_tokens=False)["input_ids"]:
        out += [[1] + ids[s : s + 255] for s in range(0, len(ids), 255) if len(ids[s : s + 255]) > 8]
    return out

def pack(rows, width):
    a = np.zeros((len(rows), width), np.uint16)
    for i, r in enumerate(rows):
        a[i, : len(r)] = r
    return a, np.array([len(r) for r in rows], np.uint16)

rng, draw = random.Random(0), Prompts().draw
SYS = ["You are a helpful AI assistant named SmolLM, trained by Hugging Face", "You are a helpful assistant.",
       "You are a patient teacher.", "You are an expert programmer.", "You are a historian.", "You are a math tutor.",
       "You answer briefly.", "You are a geography quiz master.", "You are a science writer.", "You are a translator."]
kinds = {"magpie": .25, "question": .13, "fact question": .12, "bare fact question": .08, "bare question": .05, "document": .13, "beginning": .08,
         "fact beginning": .07, "prose beginning": .09}
def bare(q):
    return f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n"
prompts, ends = [], []
long = [t for t in train if len(t) > 400]
for i in range(N):
    kind, e = rng.choices(list(kinds), kinds.values())[0], 1
    if kind == "magpie":
        ids, e = enc(f"<|im_start|>system\n{rng.choice(SYS)}<|im_end|>\n<|im_start|>user\n"), 2
    elif kind.startswith("bare"):
        ids = enc(bare(draw(kind[5:], rng)))
    elif kind.endswith("question"):
        ids = enc(model.chat(draw(kind, rng)))
    elif kind == "document":
        ids = [0]
    elif kind.endswith("t beginning") or kind == "beginning":
        ids = [1] + enc(draw(kind, rng))
    else:
        t = rng.choice(long); s = t.find(" ", rng.randrange(0, len(t) - 200)) + 1
        ids = [1] + enc(t[s : s + rng.randrange(20, 160)])
    prompts.append(ids[:P]); ends.append(e)
(a, n), (b, m), (c, o) = pack(prompts, P), pack(rows(train), 256), pack(rows(held), 256)
np.savez_compressed(sys.argv[1], prompts=a, prompt_n=n, ends=np.array(ends, np.uint8), prose=b, prose_n=m, held=c, held_n=o)
print(len(train), int(m.sum()), len(held), int(o.sum()), n.mean())
