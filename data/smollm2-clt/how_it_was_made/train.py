"""On one GPU, within minutes: sample text from SmolLM2, train a cross-layer transcoder of limited span on it and on
prose, then on the replaced model's answers; grade it; write int8 parts.

train.py MODEL.gguf DATA.npz OUT --seconds 560 [--sample 60] [--answers 150] [--reserve 45]     --tiny: a dry run

Decoders are kept by target layer: rows of all features that write to it, [sources * n, d_model].
"""
import argparse, gc, json, math, os, sys, time
T0 = time.monotonic()
import numpy as np, torch, torch.nn.functional as F
from safetensors.torch import save_file

ap = argparse.ArgumentParser()
ap.add_argument("model"); ap.add_argument("data"); ap.add_argument("out")
ap.add_argument("--seconds", type=float, default=560); ap.add_argument("--sample", type=float, default=60)
ap.add_argument("--answers", type=float, default=150); ap.add_argument("--reserve", type=float, default=50)
ap.add_argument("--features", type=int, default=1088); ap.add_argument("--span", type=int, default=6)
ap.add_argument("--k", type=int, default=32); ap.add_argument("--lr", type=float, default=2.5e-3)
ap.add_argument("--answers-lr", type=float, default=8e-4); ap.add_argument("--share", type=float, default=0.5)
ap.add_argument("--batch", type=int, default=8192); ap.add_argument("--rows", type=int, default=4096)
ap.add_argument("--tiny", action="store_true"); ap.add_argument("--random", action="store_true")
A = ap.parse_args()
dev = "cuda" if torch.cuda.is_available() else "cpu"
bf = torch.bfloat16
torch.manual_seed(0)
if A.tiny: A.rows, A.batch, A.features = (512 if dev == "cuda" else 16), 256, 96
say = lambda *a: print(f"[{time.monotonic()-T0:6.1f}]", *a, flush=True)
left = lambda: A.seconds - (time.monotonic() - T0)

from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
if A.tiny:
    hf = LlamaForCausalLM(LlamaConfig(vocab_size=49152, hidden_size=64, intermediate_size=96, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, rope_parameters={"rope_theta": 1e5, "rope_type": "default"}))
elif A.random:
    hf = LlamaForCausalLM(LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, head_dim=64, tie_word_embeddings=True, rope_parameters={"rope_theta": 1e5, "rope_type": "default"}))
else:
    d, f = os.path.split(A.model)
    hf = AutoModelForCausalLM.from_pretrained(d, gguf_file=f, dtype=torch.float32)
hf = hf.eval().to(dev).requires_grad_(False)
C = hf.config; L, D, N, SPAN, K = C.num_hidden_layers, C.hidden_size, A.features, A.span, A.k
LO = [max(0, j - SPAN + 1) for j in range(L)]  # the first layer that writes to j
HI = [min(L, i + SPAN) for i in range(L)]      # one past the last layer that i writes to
say("model", L, D, sum(p.numel() for p in hf.parameters()), dev, torch.__version__)
Z = np.load(A.data); Z = {k: torch.from_numpy(Z[k].astype(np.int64)) for k in Z.files}

# ------------------------------------------------------------------ sampling: a static cache, one captured graph a width
class Sampler:
    def __init__(s, B, T):
        s.B, s.T, s.H, s.G = B, T, C.num_attention_heads, C.num_key_value_heads
        s.hd = getattr(C, "head_dim", None) or D // s.H
        w, c = hf.model, lambda t: t.detach().to(bf).contiguous()
        s.emb, s.fin = c(w.embed_tokens.weight), c(w.norm.weight)
        s.l = [dict(n1=c(b.input_layernorm.weight), n2=c(b.post_attention_layernorm.weight), qkv=c(torch.cat([b.self_attn.q_proj.weight, b.self_attn.k_proj.weight, b.self_attn.v_proj.weight])), o=c(b.self_attn.o_proj.weight), gu=c(torch.cat([b.mlp.gate_proj.weight, b.mlp.up_proj.weight])), dn=c(b.mlp.down_proj.weight)) for b in w.layers]
        s.K = torch.zeros(L, B, s.G, T, s.hd, dtype=bf, device=dev); s.V = torch.zeros_like(s.K)
        inv = 1.0 / (1e5 ** (torch.arange(0, s.hd, 2, device=dev).float() / s.hd)); t = torch.arange(T, device=dev).float()[:, None] * inv
        s.cos, s.sin = torch.cat([t, t], 1).cos().to(bf), torch.cat([t, t], 1).sin().to(bf)
        s.tok = torch.zeros(B, dtype=torch.long, device=dev); s.pos = torch.zeros(1, dtype=torch.long, device=dev); s.graphs = {}
    def norm(s, x, g): return F.rms_norm(x, (D,), g, C.rms_norm_eps)
    def step(s, W):
        B, H, G, hd = s.B, s.H, s.G, s.hd
        h = s.emb[s.tok]; cos, sin = s.cos[s.pos], s.sin[s.pos]
        rot = lambda x: x * cos[:, None] + torch.cat([-x[..., hd // 2:], x[..., :hd // 2]], -1) * sin[:, None]
        mask = (torch.arange(W, device=dev) > s.pos)[None, None, None]
        for i, l in enumerate(s.l):
            q, k, v = (s.norm(h, l["n1"]) @ l["qkv"].T).split([H * hd, G * hd, G * hd], 1)
            q, k, v = rot(q.view(B, H, hd)), rot(k.view(B, G, hd)), v.view(B, G, hd)
            s.K[i].index_copy_(2, s.pos, k[:, :, None]); s.V[i].index_copy_(2, s.pos, v[:, :, None])
            Kc, Vc = s.K[i][:, :, :W], s.V[i][:, :, :W]
            sc = (q.view(B, G, H // G, hd) @ Kc.transpose(2, 3)) * hd ** -0.5
            p = sc.masked_fill(mask, -torch.inf).softmax(-1, dtype=torch.float32).to(bf)
            h = h + (p @ Vc).reshape(B, H * hd) @ l["o"].T
            a, b = (s.norm(h, l["n2"]) @ l["gu"].T).chunk(2, 1); h = h + (F.silu(a) * b) @ l["dn"].T
        lo = (s.norm(h, s.fin) @ s.emb.T).float(); lo = lo.masked_fill(lo < lo.amax(1, keepdim=True) + math.log(0.02), -torch.inf)
        return (lo - torch.empty_like(lo).exponential_().log_()).argmax(1)
    def next(s, W):
        if dev == "cpu": return s.step(W)
        if W not in s.graphs:
            side = torch.cuda.Stream(); side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2): s.step(W)
            torch.cuda.current_stream().wait_stream(side); g = torch.cuda.CUDAGraph()
            with torch.cuda.graph(g): out = s.step(W)
            s.graphs[W] = (g, out)
        g, out = s.graphs[W]; g.replay(); return out
    @torch.no_grad()
    def round(s, prompts, n, ends):
        """prompts [B, P], n [B] -> ids [B, T], lengths [B]."""
        prompts, n, ends = prompts.to(dev), n.to(dev), ends.to(dev)
        out = torch.zeros(s.B, s.T, dtype=torch.long, device=dev); done = torch.full((s.B,), s.T, device=dev); seen = torch.zeros(s.B, device=dev)
        s.tok.copy_(prompts[:, 0]); out[:, 0] = s.tok
        for t in range(s.T - 1):
            s.pos.fill_(t); new = s.next(min(s.T, (t // 64 + 1) * 64))
            given = t + 1 < n
            new = torch.where(given, prompts[:, min(t + 1, prompts.shape[1] - 1)], new); s.tok.copy_(new); out[:, t + 1] = new
            seen += (~given & ((new == 2) | (new == 0))) * torch.where(new == 0, 9, 1)
            done = torch.where((seen >= ends) & (done == s.T), t + 2, done)
        return out.cpu(), done.cpu()

rows, r = [], 0
sm, t1 = Sampler(A.rows, 256 if not A.tiny else 64), time.monotonic()
while time.monotonic() - t1 < A.sample and (r + 1) * A.rows <= len(Z["prompts"]) and not (A.tiny and r >= 2):
    x, n = sm.round(*(Z[k][r * A.rows:(r + 1) * A.rows] for k in ("prompts", "prompt_n", "ends"))); r += 1
    x[:, 0] = 1  # documents were begun by the other special token
    rows += [a[:b] for a, b in zip(x.to(torch.int32), n.tolist()) if b > 12]
    if r <= 2 or r % 5 == 0: say("sampled", r, sum(map(len, rows)))
S = sum(map(len, rows)); say(f"sampled {len(rows)} rows, {S:,} tokens, {S/(time.monotonic()-t1):,.0f}/s"); del sm; gc.collect()
if dev == "cuda": torch.cuda.empty_cache()
heldS = rows[::50][:400]; rows = [x for i, x in enumerate(rows) if i % 50]
rows += [a[:b].to(torch.int32) for a, b in zip(Z["prose"], Z["prose_n"].tolist())]
heldP = [a[:b].to(torch.int32) for a, b in zip(Z["held"], Z["held_n"].tolist())][:400]
if A.tiny: heldS, heldP, rows = heldS[:6], heldP[:6], [x[:64] for x in rows[:600]]

# ------------------------------------------------------------------ activations
net = hf.to(bf); reader = net.model; xs, ys, mode, repl = [None] * L, [None] * L, ["clean"], [None]
def hook(i):
    def f(m, a, o):
        if mode[0] == "clean": xs[i], ys[i] = a[0], o; return None
        return torch.cat([o[:, :1], repl[0](i, a[0])[:, 1:].to(o.dtype)], 1)
    return f
for i, b in enumerate(reader.layers): b.mlp.register_forward_hook(hook(i))
def batches_of(some, at_once=16384):
    some = sorted(some, key=len); i = 0
    while i < len(some):
        j = i
        while j < len(some) and len(some[j]) * (j + 1 - i) <= at_once: j += 1
        j = max(j, i + 1); w = len(some[j - 1]); ids = torch.zeros(j - i, w, dtype=torch.long); real = torch.zeros(j - i, w, dtype=torch.bool)
        for q, x in enumerate(some[i:j]): ids[q, :len(x)] = x; real[q, 1:len(x)] = True
        yield ids.to(dev, non_blocking=True), real.to(dev, non_blocking=True); i = j
BLOCK = 32 * A.batch
def row_stream(seed):
    rng, epoch = np.random.default_rng(seed), []
    while True:
        if not epoch: epoch = list(rng.permutation(len(rows)))
        yield rows[epoch.pop()]
@torch.no_grad()
def stream(seed):
    more = row_stream(seed); X = torch.empty(L, BLOCK, D, dtype=bf, device=dev); Y = torch.empty_like(X)
    while True:
        n, some, at = 0, [], 0
        while n < BLOCK: some.append(next(more)); n += len(some[-1]) - 1
        for ids, real in batches_of(some):
            reader(input_ids=ids, use_cache=False); idx = real.flatten().nonzero()[:, 0]; m = min(len(idx), BLOCK - at)
            for i in range(L): X[i, at:at + m] = xs[i].flatten(0, 1)[idx[:m]]; Y[i, at:at + m] = ys[i].flatten(0, 1)[idx[:m]]
            at += m
        order = torch.randperm(at, device=dev)
        for j in range(at // A.batch): yield X, Y, order[j * A.batch:(j + 1) * A.batch]

# ------------------------------------------------------------------ the transcoder
mm32 = (lambda a, b: torch.mm(a, b, out_dtype=torch.float32)) if dev == "cuda" else (lambda a, b: a.float() @ b.float())
src = stream(1); X, Y, h = next(src); say("first block")
g = torch.Generator().manual_seed(0)
We = torch.empty(L, N, D).uniform_(-D ** -.5, D ** -.5, generator=g).to(dev)
Wd = [torch.zeros((j + 1 - LO[j]) * N, D, device=dev) for j in range(L)]
be, bd = torch.zeros(L, N, device=dev), torch.zeros(L, D, device=dev)
sx, sy, mean = torch.zeros(L, device=dev), torch.zeros(L, device=dev), torch.zeros(L, D, device=dev)
for i in range(L):
    x, y = X[i].float(), Y[i].float(); mean[i] = y.mean(0)
    sx[i] = D ** .5 / x.norm(dim=1).mean(); sy[i] = D ** .5 / (y - mean[i]).pow(2).sum(1).mean().sqrt()
    be[i] = -(We[i] @ (x[:A.batch].mean(0) * sx[i])); del x, y
SX, SY = sx.tolist(), sy.tolist()
params = [We, be, bd, *Wd]
bWe, bWd = We.to(bf), [w.to(bf) for w in Wd]                       # what products read
bWs = [torch.zeros(N, (HI[i] - i) * D, dtype=bf, device=dev) for i in range(L)]   # by source, for the way back
def by_source():
    for j in range(L):
        for i in range(LO[j], j + 1): bWs[i][:, (j - i) * D:(j - i + 1) * D] = bWd[j][(i - LO[j]) * N:(i - LO[j] + 1) * N]
def refresh(): torch._foreach_copy_([bWe, *bWd], [We, *Wd])
theta, fired, thetas = None, torch.zeros(L, N, device=dev), []
Act = torch.zeros(A.batch, L * N, dtype=bf, device=dev)
G = torch.zeros(A.batch, L * D, dtype=bf, device=dev)
opt = torch.optim.Adam(params, lr=A.lr, betas=(.9, .99), fused=dev == "cuda")
for p in params: p.grad = torch.zeros_like(p)

@torch.no_grad()
def step(t, rate, revive, X, Y, h, log):
    global theta
    for group in opt.param_groups: group["lr"] = rate
    refresh(); by_source(); by = 2 / (len(h) * D); loss, top, x_, bb = 0, [], [], be.to(bf)
    for i in range(L):
        x = X[i, h].float().mul_(SX[i]).to(bf); x_.append(x)
        pre = torch.addmm(bb[i], x, bWe[i].T); top.append(pre[:64].flatten())
        if theta is None: continue
        a = Act[:, i * N:(i + 1) * N]; torch.mul(pre, pre > theta, out=a)
    v = torch.cat(top).float().topk(K * L * 64).values[-1].clamp(min=0)
    if theta is None: theta = v; return step(t, rate, revive, X, Y, h, log)
    for j in range(L):
        e = mm32(Act[:, LO[j] * N:(j + 1) * N], bWd[j]); e += bd[j]
        e -= (Y[j, h].float() - mean[j]).mul_(SY[j])
        bd.grad[j] = e.sum(0) * by; G[:, j * D:(j + 1) * D] = e * by
        Wd[j].grad.copy_(mm32(Act[:, LO[j] * N:(j + 1) * N].T, G[:, j * D:(j + 1) * D]))
        if log: loss = loss + e.pow(2).sum()
    alive = Act.amax(0).view(L, N) > 0
    fired.masked_fill_(alive, float(t))
    for i in range(L):
        d = G[:, i * D:HI[i] * D] @ bWs[i].T
        d *= Act[:, i * N:(i + 1) * N] > 0
        We.grad[i] = mm32(d.T, x_[i]); be.grad[i] = d.sum(0, dtype=torch.float32)
    gs = [p.grad for p in params]; norm = torch.stack(torch._foreach_norm(gs)).norm(); torch._foreach_mul_(gs, (1 / norm).clamp(max=1)); opt.step()
    theta = theta + .3 * (v - theta)
    if revive: be.add_(.02 * (fired < t - 100))
    if log: return float(loss / (len(h) * D * L)), float((Act > 0).sum() / (len(h) * L)), float((fired < t - 100).float().mean()), float(norm), float(theta)

hist, t1, total, j, FINAL = [], time.monotonic(), 10 ** 9, 0, .25
budget = left() - A.reserve - A.answers if not A.tiny else 9
while j < total:
    rate = min(1, (j + 1) / 200, FINAL + (1 - FINAL) * (1 - j / total) / .25)
    r = step(j, A.lr * rate, j < .8 * total, *((X, Y, h) if j == 0 else next(src)), j % 25 == 0); j += 1
    if j == 200 or (A.tiny and j == 5): total = max(j + 1, int(budget / (time.monotonic() - t1) * j)) if not A.tiny else 60; say("steps planned", total)
    if j > .9 * total: thetas.append(theta)
    if r: hist.append([j, *r])
    if r and ((j - 1) % 250 == 0 or A.tiny): say(j, [round(x, 4) for x in r])
    if time.monotonic() - t1 > budget + 5: say("out of time at", j); break
STEPS1 = j; say("trained", j, "steps", j * A.batch, "tokens")
if thetas: theta = torch.stack(thetas).mean()
del X, Y, h, Act, G, bWs; src.close(); del src; opt = None; gc.collect()
for p in params: p.grad = None
if dev == "cuda": torch.cuda.empty_cache()

# ------------------------------------------------------------------ the replaced model, and grades
class Replaced:
    """Layers in order: a layer's input -> what is rebuilt of its MLP's output."""
    def __init__(s, theta, weights=None): s.theta, s.acts, s.n_on = theta, {}, 0; s.We, s.Wd = weights or (bWe, bWd)
    def encode(s, i, x):
        p = F.linear(x * SX[i], s.We[i], be[i].to(s.We[i].dtype)); return p * (p > s.theta)
    def normalised(s, j): return torch.cat([s.acts[i] for i in range(LO[j], j + 1)], -1) @ s.Wd[j] + bd[j].to(s.Wd[j].dtype)
    def __call__(s, i, x):
        s.acts[i] = s.encode(i, x); s.acts.pop(i - SPAN, None)
        return s.normalised(i) / SY[i] + mean[i].to(x.dtype)

@torch.no_grad()
def grade(some, theta):
    err, l0, n = torch.zeros(L, device=dev), torch.zeros(L, device=dev), 0
    sums, sq, on = torch.zeros(L, D, device=dev), torch.zeros(L, device=dev), torch.zeros(L, N, device=dev)
    top1 = kl = lo0 = lo1 = m = 0.0
    for ids, real in batches_of(some, 8192):
        mode[0] = "clean"; p = net(input_ids=ids, use_cache=False).logits.float().log_softmax(-1); k = int(real.sum()); c = Replaced(theta)
        for i in range(L):
            y = ys[i][real].float(); q = c(i, xs[i][real]).float(); a = c.acts[i]
            err[i] += (q - y).pow(2).sum(); sums[i] += y.sum(0); sq[i] += y.pow(2).sum(); l0[i] += (a > 0).sum(); on[i] += (a > 0).sum(0)
        n += k; mode[0], repl[0] = "replaced", Replaced(theta); q = net(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
        top1 += float((p.argmax(-1) == q.argmax(-1))[real].sum()); kl += float((p.exp() * (p - q)).sum(-1)[real].sum())
        nx = real[:, 1:] & real[:, :-1]; tg = ids[:, 1:, None]
        lo0 -= float(p[:, :-1].gather(2, tg)[..., 0][nx].sum()); lo1 -= float(q[:, :-1].gather(2, tg)[..., 0][nx].sum()); m += int(nx.sum())
    nm = err / (sq - sums.pow(2).sum(1) / n)
    return dict(tokens=n, NMSE=float(nm.mean()), L0=float(l0.sum() / n / L), dead=float((on == 0).float().mean()), top1=top1 / n, KL=kl / n, loss_model=lo0 / m, loss=lo1 / m, layers=[[round(float(a), 4), round(float(b) / n, 2)] for a, b in zip(nm, l0)])
report = {"args": vars(A), "steps": STEPS1, "tokens": STEPS1 * A.batch, "own_tokens": S, "rows": len(rows), "history": hist}
short = lambda r: {a: round(b, 4) for a, b in r.items() if a != "layers"}
os.makedirs(A.out, exist_ok=True)
refresh()
report["before"] = {"own": grade(heldS[:60], theta), "prose": grade(heldP[:60], theta)}; say("before", {k: short(v) for k, v in report["before"].items()})

# ------------------------------------------------------------------ the stage on the replaced model's answers
leaves = [bWe, *bWd]; masters = [We, *Wd]
for w in (*leaves, be, bd): w.requires_grad_()
opt = torch.optim.Adam([*masters, be, bd], lr=A.answers_lr, betas=(.9, .99), fused=dev == "cuda")
more, klw, t1, j, tok, khist = row_stream(2), None, time.monotonic(), 0, 0, []
def text_batches():
    while True:
        pool, n = [], 0
        while n < 16 * 12288: pool.append(next(more)); n += len(pool[-1])
        some = list(batches_of(pool, 12288 if not A.tiny else 512))
        for q in np.random.default_rng(j).permutation(len(some)): yield some[q]
answers = left() - A.reserve if not A.tiny else 5
for ids, real in text_batches():
    frac = (time.monotonic() - t1) / answers
    if frac >= 1: break
    for group in opt.param_groups: group["lr"] = A.answers_lr * min(1, (j + 1) / 30, (1 - frac) / .6)
    mode[0] = "clean"
    with torch.no_grad():
        hid = reader(input_ids=ids, use_cache=False).last_hidden_state[real]; logp = net.lm_head(hid).float().log_softmax(-1)
    x, y = [v[real] for v in xs], [v[real] for v in ys]
    mode[0], repl[0] = "replaced", Replaced(theta)
    logq = net.lm_head(reader(input_ids=ids, use_cache=False).last_hidden_state[real]).float().log_softmax(-1)
    kl = F.kl_div(logq, logp, reduction="batchmean", log_target=True)
    same = (logp.argmax(-1) == logq.argmax(-1)).float().mean() if j % 20 == 0 else None
    c, mse, n_on, top = Replaced(theta), 0, 0, []
    for i in range(L):
        c(i, x[i]); mse = mse + (c.normalised(i).float() - (y[i].float() - mean[i]) * SY[i]).pow(2).mean() / L
        with torch.no_grad():
            if j % 20 == 0: n_on += (c.acts[i] > 0).sum()
            top.append(F.linear(x[i][:64] * SX[i], bWe[i], be[i].to(bf)).flatten())
    with torch.no_grad():
        ratio = (mse / kl).detach(); klw = ratio if klw is None else .95 * klw + .05 * ratio
    (kl * (A.share * klw) + mse * (1 - A.share)).backward()
    with torch.no_grad():
        for a, b in zip(masters, leaves): a.grad = b.grad.float(); b.grad = None
        gs = [p.grad for p in (*masters, be, bd)]; norm = torch.stack(torch._foreach_norm(gs)).norm(); torch._foreach_mul_(gs, (1 / norm).clamp(max=1))
        opt.step(); refresh(); be.grad = bd.grad = None; tok += len(logp)
        v = torch.cat(top).float().topk(min(K * L * 64, K * L * len(x[0]))).values[-1].clamp(min=0); theta = theta + .05 * (v - theta)
    if j % 20 == 0:
        khist.append([j, tok, float(kl.detach()), float(mse.detach()), float(same), float(n_on) / len(logp) / L, float(theta), float(norm)])
        if j % 40 == 0 or A.tiny or A.random: say("answers", [round(q, 4) for q in khist[-1]])
    del logp, logq, kl, mse, x, y, c
    j += 1
    if A.tiny and j > 40: break
say("answers", j, "steps", tok, "tokens"); report |= {"answers_steps": j, "answers_tokens": tok, "answers_history": khist}
for w in (*leaves, be, bd): w.requires_grad_(False)
opt = None; repl[0] = None; gc.collect()

# ------------------------------------------------------------------ int8 parts and grades
with torch.no_grad():
    flat = {}
    for i in range(L):
        dec = torch.stack([Wd[j][(i - LO[j]) * N:(i - LO[j] + 1) * N] / SY[j] for j in range(i, HI[i])], 1)   # [N, target, D]
        for t, w in (("W_enc", We[i] * SX[i]), ("W_dec", dec)):
            sc = w.abs().amax(-1).clamp(min=1e-30) / 127
            flat[f"{i}.{t}"], flat[f"{i}.{t}_scale"] = (w / sc[..., None]).round().to(torch.int8), sc
            back = flat[f"{i}.{t}"] * sc[..., None]     # what ships is graded
            if t == "W_enc": bWe[i] = back / SX[i]
            else:
                for q, j in enumerate(range(i, HI[i])): bWd[j][(i - LO[j]) * N:(i - LO[j] + 1) * N] = back[:, q] * SY[j]
        flat[f"{i}.b_enc"], flat[f"{i}.b_dec"], flat[f"{i}.threshold"] = be[i].clone(), bd[i] / SY[i] + mean[i], theta.expand(N).clone()
    flat = {k: v.cpu() for k, v in flat.items()}
parts = 14
for q in range(parts):
    some = {k: v.contiguous() for k, v in flat.items() if int(k.split(".")[0]) % parts == q}
    if some: save_file(some, f"{A.out}/part{q:02d}.safetensors")
json.dump(report, open(f"{A.out}/report.json", "w"))
say("saved", sum(os.path.getsize(f"{A.out}/{f}") for f in os.listdir(A.out)))
report["after"] = {"own": grade(heldS[:200], theta), "prose": grade(heldP[:200], theta)}; say("after", {k: short(v) for k, v in report["after"].items()})
json.dump(report, open(f"{A.out}/report.json", "w"))
for factor in (1.2, 1.5):
    if left() < 6 and not A.tiny: break
    r = grade(heldP[:100], theta * factor); report[f"threshold x {factor}"] = r; say("threshold", factor, short(r))
json.dump(report, open(f"{A.out}/report.json", "w"))
