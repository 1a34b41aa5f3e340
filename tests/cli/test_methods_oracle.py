# SPDX-License-Identifier: MIT
"""AWQ, SmoothQuant, GPTQ and the choices of scales against the published procedures in numpy: of layer 0, whose inputs
are the normed embeddings."""
import numpy as np
import pytest
from common import config_of, encode_int, facts, integer, read_folder, values
from methods import ATTENTION, CONSUMERS, FFN, Layer, awq_oracle, ids_of, outliers, prepare, rounded, sites, write_ids

P = "model.layers.0."
SITE = {"q": (ATTENTION, "input_layernorm", "attn_norm"), "o": ("attn_output", "self_attn.v_proj", "attn_v"),
        "gate": (FFN, "post_attention_layernorm", "ffn_norm"), "down": ("ffn_down", "mlp.up_proj", "ffn_up")}
FULL = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
        "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}


def relative(a, b):
    return np.abs(np.asarray(a) / np.asarray(b) - 1).max()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """kv_heads -> folder, ids, tensors, layer 0."""
    root, made = tmp_path_factory.mktemp("oracle"), {}

    def get(kv_heads=4):
        if kv_heads not in made:
            tensors = outliers(root / str(kv_heads), kv_heads=kv_heads, embd=64 if kv_heads == 4 else 128)
            ids = write_ids(root / "ids", 60)
            made[kv_heads] = root / str(kv_heads), ids, tensors, Layer(tensors, ids_of(ids), 16)
        return made[kv_heads]
    return get


def folded(tensors, out, site):
    """What an output's producer was divided by: a norm, or rows of a weight whose columns were multiplied."""
    name = f"{P}{SITE[site][1]}.weight"
    before, after = tensors[name], values(read_folder(out)[name])
    if before.ndim == 1:
        return before / after
    return np.median(before * folded(tensors, out, {"o": "q", "down": "gate"}[site]) / after, 1)


# ---- AWQ ----

@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("kind", ["i4_asym_g32", "i3_g32", "i4_asym"])
@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_awq(model, tmp_path, kind, kv_heads, device):
    """Ratio, form and losses are those of a search over all candidates; what was folded are its factors."""
    folder, ids, tensors, layer = model(kv_heads)
    found = sites(prepare(folder, tmp_path / "out", "f32", "awq", ids, "--search-type", kind, device=device))
    assert len(found) == 4
    stored = {n: values(t) for n, t in read_folder(tmp_path / "out").items()}
    columns = {}
    for key, (name, _, producer) in SITE.items():
        site = found[0, name]
        if key == "o" and kv_heads != 4:  # as many values as outputs are needed
            assert "ratio" not in site and "folded_into" not in site
            continue
        losses, factors = awq_oracle(layer, key, kind)
        best = int(losses.argmin())
        assert site["folded_into"] == producer
        assert (round(site["ratio"] * 20), site["weighted"]) == (best % 20, best < 20), key
        assert relative(site["search_loss"], losses[best]) < 1e-4
        assert relative(site["search_loss_without"], losses[20]) < 1e-4
        assert losses[best] < 0.95 * losses[20]
        s = columns[key] = folded(tensors, tmp_path / "out", key)
        assert relative(s, factors[best]) < 1e-5
    assert len(columns) == (4 if kv_heads == 4 else 3)
    for key, s in columns.items():  # and all readers were multiplied, the two that also produce divided
        for n in CONSUMERS[key]:
            folds = {"v": "o", "up": "down"}
            rows = columns[folds[n]][:, None] if folds.get(n) in columns else 1
            name = f"{P}{FULL[n]}.weight"
            assert np.allclose(stored[name], tensors[name] * s / rows, rtol=2e-6, atol=0)


def test_awq_of_integers(model, tmp_path):
    """An integer output is rounded with its own type, after the factors, and read back through them."""
    folder, ids, tensors, layer = model()
    found = sites(prepare(folder, tmp_path / "out", "i4_asym_g32", "awq", ids, "--no-clip"))
    config, stored = config_of(tmp_path / "out"), read_folder(tmp_path / "out")
    factors = {}
    for key, (name, _, _) in SITE.items():
        losses, all_factors = awq_oracle(layer, key, "i4_asym_g32")
        best, site = losses.argmin(), found[0, name]
        assert (round(site["ratio"] * 20), site["weighted"]) == (best % 20, best < 20)
        factors[key] = all_factors[best]
    for key, consumers in CONSUMERS.items():
        error = energy = 0
        for n in consumers:
            rows = factors["o"][:, None] if n == "v" else factors["down"][:, None] if n == "up" else 1
            w = integer(stored, config, P + FULL[n])
            q, s, z = encode_int(tensors[f"{P}{FULL[n]}.weight"] * factors[key] / rows, 4, False, "F32", 32)
            assert (w.q != q).mean() < 2e-3 and np.allclose(w.scale, s, rtol=1e-5) and (w.zero != z).mean() < 2e-3
            d = w.decode() * rows / factors[key] - layer.w[n]
            error += ((layer.inputs[key] @ d.T) ** 2).sum()
            energy += ((layer.inputs[key] @ layer.w[n].T) ** 2).sum()
        assert relative(found[0, SITE[key][0]]["error"], error) < 1e-4
        assert relative(found[0, SITE[key][0]]["energy"], energy) < 1e-4


def test_awq_search_tokens(model, tmp_path):
    """With fewer tokens for the search the losses are those of the first windows, the means those of all."""
    folder, ids, tensors, layer = model()
    found = sites(prepare(folder, tmp_path / "out", "f32", "awq", ids, "--search-type", "i4_asym_g32",
                          "--search-tokens", "16"))
    instead = {n: rounded(layer.w[n], "i4_asym_g32") for n in CONSUMERS["gate"]}
    plain = ((layer.module("gate", instead) - layer.module("gate", {}))[:16] ** 2).mean()
    assert relative(found[0, FFN]["search_loss_without"], plain) < 1e-4
    site = found[0, FFN]
    _, factors = awq_oracle(layer, "gate", "i4_asym_g32")
    k = round(site["ratio"] * 20) + (0 if site["weighted"] else 20)
    assert relative(folded(tensors, tmp_path / "out", "gate"), factors[k]) < 1e-5


# ---- SmoothQuant ----

@pytest.mark.parametrize("alpha", ["0", "0.5", "0.85", "1"])
def test_smoothquant(model, tmp_path, alpha):
    """The factors of the published formula, folded into norms only."""
    folder, ids, tensors, layer = model()
    a = float(alpha)
    found = sites(prepare(folder, tmp_path / "out", "f32", "smoothquant", ids, "--alpha", alpha))
    for key in "q", "gate":
        x = np.abs(layer.inputs[key]).max(0)
        w = np.concatenate([np.abs(layer.w[n]) for n in CONSUMERS[key]]).max(0)
        s = np.maximum(1e-5, x**a / np.maximum(1e-5, w) ** (1 - a))
        assert relative(folded(tensors, tmp_path / "out", key), s) < 1e-5
        assert abs(found[0, SITE[key][0]]["ratio"] - a) < 1e-6
    assert "ratio" not in found[0, "attn_output"] and "ratio" not in found[0, "ffn_down"]


def int8_tokens(x):
    s = np.abs(x).max(-1, keepdims=True) / 127
    return np.rint(x / s) * s


def test_smoothquant_search(model, tmp_path):
    """The alpha of least loss with int8 inputs of a scale for each token, or none."""
    folder, ids, tensors, layer = model()
    found = sites(prepare(folder, tmp_path / "out", "w8a8", "smoothquant", ids, "--alpha", "search"))
    x, w = layer.inputs["gate"], [layer.w[n] for n in ("gate", "up")]
    reference = layer.module("gate", {})

    def loss(a):
        top = np.concatenate([np.abs(m) for m in w]).max(0)
        s = np.ones(len(top)) if a is None else np.abs(x).max(0) ** a / top ** (1 - a)
        q = {n: encode_int((m * s).astype(np.float32), 8, True, "F32") for n, m in zip(("gate", "up"), w)}
        q = {n: c * scale for n, (c, scale, _) in q.items()}
        inputs = int8_tokens(x / s)
        g = inputs @ q["gate"].T
        return ((g / (1 + np.exp(-g)) * (inputs @ q["up"].T) @ layer.w["down"].T - reference) ** 2).mean()
    each = np.array([loss(None)] + [loss(k / 20) for k in range(6, 19)])
    site = found[0, FFN]
    assert relative(site["search_loss_without"], each[0]) < 1e-3
    assert relative(site["search_loss"], each.min()) < 1e-3
    assert each.argmin() and abs(site["ratio"] - (5 + each.argmin()) / 20) < 1e-6


# ---- GPTQ ----

def gptq_reference(w, gram, scale, zero, bits, order, damp=0.01):
    """The published sweep, column by column, without blocks. scale, zero: [rows][groups]."""
    h = gram[np.ix_(order, order)].copy()
    h[np.diag_indices_from(h)] += damp * np.mean(np.diag(gram))
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    w = w[:, order].copy()
    q = np.zeros(w.shape, int)
    group = w.shape[1] // scale.shape[1]
    for j, c in enumerate(order):
        s, z = scale[:, c // group], zero[:, c // group]
        q[:, j] = np.clip(np.rint(w[:, j] / s) + z, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        e = (w[:, j] - s * (q[:, j] - z)) / u[j, j]
        w[:, j:] -= np.outer(e, u[j, j:])
    out = np.zeros_like(q)
    out[:, order] = q
    return out


@pytest.mark.parametrize("order", ["descending", "kept"])
@pytest.mark.parametrize("kind", ["i4_g32", "i3_asym_g32"])
def test_gptq(model, tmp_path, kind, order):
    folder, ids, tensors, layer = model()
    more = ["--keep-order"] if order == "kept" else []
    found = sites(prepare(folder, tmp_path / "out", kind, "gptq", ids, "--scales", "absmax", *more))
    config, stored = config_of(tmp_path / "out"), read_folder(tmp_path / "out")
    for key, consumers in CONSUMERS.items():
        error = nearest = 0
        for n in consumers:
            x = layer.inputs[key]
            gram = x.T @ x
            w = integer(stored, config, P + FULL[n])
            q0, s, z = encode_int(tensors[f"{P}{FULL[n]}.weight"], dtype="F32", **facts(kind))
            assert np.allclose(w.scale, s, rtol=1e-6) and np.array_equal(w.zero, z)
            columns = np.arange(len(gram)) if order == "kept" else np.argsort(-np.diag(gram), kind="stable")
            q = gptq_reference(layer.w[n], gram, s.astype(np.float64), z, w.bits, columns)
            assert (w.q != q).mean() < 0.01, (n, (w.q != q).mean())
            error += ((x @ (w.decode() - layer.w[n]).T) ** 2).sum()
            group = w.q.shape[1] // s.shape[1]
            rtn = np.repeat(s, group, 1) * (q0 - np.repeat(z, group, 1))
            nearest += ((x @ (rtn - layer.w[n]).T) ** 2).sum()
        site = found[0, SITE[key][0]]
        assert relative(site["error"], error) < 1e-3 and error < nearest
        assert "folded_into" not in site


# ---- scales ----

def cost_of(x, d, group):
    """[rows][groups]: sums over the tokens of squares of each group's part of the products."""
    rows, cols = d.shape
    parts = [x[:, g:g + group] @ d[:, g:g + group].T for g in range(0, cols, group)]
    return np.stack([(p**2).sum(0) for p in parts], 1)


@pytest.mark.parametrize("kind", ["i4_g32", "i4_asym_g32"])
def test_clip(model, tmp_path, kind):
    """AWQ's clipping of what AWQ scaled: the range of least error on the scaled inputs."""
    folder, ids, tensors, layer = model()
    prepare(folder, tmp_path / "out", kind, "awq", ids, "--scales", "clip")
    config, stored = config_of(tmp_path / "out"), read_folder(tmp_path / "out")
    s = folded(tensors, tmp_path / "out", "gate").astype(np.float64)
    w, x = (tensors[P + "mlp.gate_proj.weight"] * s).astype(np.float32), layer.inputs["gate"] / s
    most = np.repeat(np.abs(w).reshape(len(w), -1, 32).max(-1), 32, 1)
    costs, scales = [], []
    for i in range(10):
        m = most * np.float32(1 - i / 20)
        q, scale, zero = encode_int(np.clip(w, -m, m), dtype="F32", **facts(kind))
        q = np.clip(np.rint(w / np.repeat(scale, 32, 1)) + np.repeat(zero, 32, 1), -8, 7)
        costs.append(cost_of(x, np.repeat(scale, 32, 1) * (q - np.repeat(zero, 32, 1)) - w, 32))
        scales.append(scale)
    best = np.argmin(costs, 0)
    expected = np.take_along_axis(np.array(scales), best[None], 0)[0]
    ours = integer(stored, config, P + "mlp.gate_proj")
    same = np.isclose(ours.scale, expected, rtol=1e-5)
    assert same.mean() > 0.97 and (best > 0).mean() > 0.2
    assert cost_of(x, ours.decode() - w, 32).sum() < 1.001 * np.min(costs, 0).sum()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("form", ["", "_asym"])
def test_search_beats_others(model, tmp_path, bits, form):
    """Scales by search cost no more than those of the range or of clipping, in what they are chosen by."""
    folder, ids, tensors, layer = model()
    error = {}
    for rule in "absmax", "clip", "search":
        found = sites(prepare(folder, tmp_path / rule, f"i{bits}{form}_g32", "smoothquant", ids, "--alpha", "0.5",
                              "--scales", rule))
        error[rule] = sum(s["error"] for s in found.values())
    assert error["search"] < error["clip"] and error["search"] < error["absmax"]
