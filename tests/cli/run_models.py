# SPDX-License-Identifier: MIT
"""Tiny checkpoints that are run, and the program that runs them (tests/run_model.c). Their bytes are the same
everywhere, so that numbers from other programs can be kept: tests/golden/make_logits.py."""
import json
import os
import pathlib
import subprocess

import numpy as np
from arch_models import ARCHS, E, F, HEADS, LAYERS, make, weights
from common import REPO, st

RUN_MODEL = os.environ.get("CLQ_RUN_MODEL") or str(REPO / "build" / "tests" / "run_model")
CONTEXT = 256

# name: architecture, edits of config.json. Layers that slide and layers that do not; all kinds of rope scaling.
MODELS = {name: (name, {}) for name in ARCHS} | {
    "gemma3_global": ("gemma3", {"sliding_window_pattern": 2}),
    "gemma2_base": ("gemma2", {"rope_theta": 500000.0}),
    "phi3_short": ("phi3", {"original_max_position_embeddings": 256}),
    "qwen2_linear": ("qwen2", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "mixtral_llama3": ("mixtral", {"rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}}),
}
PROMPTS = [[7], [5, 9, 200, 31, 4], [(i * 37 + 11) % 250 for i in range(50)]]


def make_model(folder, name):
    arch, edits = MODELS[name]
    make(folder, arch, **edits)
    return folder


BERT_VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz",
              *[f"##{c}" for c in "abcdefgh"]]


def make_bert(folder):
    """An encoder with small weights, WordPiece, mean pooling."""
    folder = pathlib.Path(folder)
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    shapes = {"embeddings.word_embeddings.weight": (len(BERT_VOCAB), E),
              "embeddings.position_embeddings.weight": (64, E), "embeddings.token_type_embeddings.weight": (2, E)}
    for norm in ["embeddings.LayerNorm"] + [f"encoder.layer.{i}.{n}.LayerNorm" for i in range(LAYERS)
                                            for n in ("attention.output", "output")]:
        shapes |= {f"{norm}.weight": (E,), f"{norm}.bias": (E,)}
    for i in range(LAYERS):
        p = f"encoder.layer.{i}."
        for name, rows, cols in (("attention.self.query", E, E), ("attention.self.key", E, E),
                                 ("attention.self.value", E, E), ("attention.output.dense", E, E),
                                 ("intermediate.dense", F, E), ("output.dense", E, F)):
            shapes |= {f"{p}{name}.weight": (rows, cols), f"{p}{name}.bias": (rows,)}
    st(folder / "model.safetensors", {n: weights(k, s) for k, (n, s) in enumerate(shapes.items())}, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": E, "intermediate_size": F,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "max_position_embeddings": 64,
        "layer_norm_eps": 1e-12, "vocab_size": len(BERT_VOCAB), "type_vocab_size": 2, "hidden_act": "gelu"}))
    (folder / "vocab.txt").write_text("\n".join(BERT_VOCAB) + "\n")
    added = [{"id": i, "content": BERT_VOCAB[i], "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i in range(5)]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                                      {"Sequence": {"id": "A", "type_id": 0}},
                                      {"SpecialToken": {"id": "[SEP]", "type_id": 0}}], "pair": [],
                           "special_tokens": {t: {"id": t, "ids": [BERT_VOCAB.index(t)], "tokens": [t]}
                                              for t in ("[CLS]", "[SEP]")}},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {w: i for i, w in enumerate(BERT_VOCAB)}}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
        "mask_token": "[MASK]", "tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    (folder / "modules.json").write_text(json.dumps([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({
        "word_embedding_dimension": E, "pooling_mode_mean_tokens": True}))
    return folder


def run_model(path, ids, device="ref", **options):
    """The floats that run_model writes."""
    r = subprocess.run([RUN_MODEL, path, f"device={device}", *[f"{k}={v}" for k, v in options.items()],
                        *map(str, ids)], capture_output=True, timeout=600)
    assert r.returncode == 0, r.stderr.decode()
    return np.frombuffer(r.stdout, np.float32)


def logits(path, ids, **options):
    return run_model(path, ids, **{"context": CONTEXT, **options}).reshape(len(ids), -1).astype(np.float64)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))
