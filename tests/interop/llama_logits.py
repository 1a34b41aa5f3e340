# SPDX-License-Identifier: MIT
"""What llama.cpp (PyPI xllamacpp) computes for tokens: float32 throughout, no flash attention."""
import os

import numpy as np
import xllamacpp


def version():
    return f"xllamacpp {xllamacpp.__version__ if hasattr(xllamacpp, '__version__') else ''}".strip()


def parameters(path, context):
    p = xllamacpp.CommonParams()
    p.model.path = str(path)
    p.n_ctx = context
    p.n_parallel = 1
    p.n_gpu_layers = 0
    p.cpuparams.n_threads = min(4, os.cpu_count() or 1)
    p.warmup = False
    p.verbosity = 0
    p.no_extra_bufts = True
    p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return p


def log_probabilities(path, prompts, context=256, n_top=4096):
    """For each prompt (a list of ids) the logarithms of the probabilities of the tokens behind it; NaN: not among the
    n_top likeliest. Any token that can be shown may be the one that is chosen."""
    server = xllamacpp.Server(parameters(path, context))
    rows = []
    for prompt in prompts:
        reply = server.handle_completions({"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": n_top,
                                           "cache_prompt": False, "logit_bias": [[73, 1e4]]})
        top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        row = np.full(1 + max(t["id"] for t in top), np.nan)
        for t in top:
            row[t["id"]] = t["logprob"]
        assert n_top < 4096 or not np.isnan(row).any()
        rows.append(row)
    del server
    return rows


def embeddings(path, prompts, context=64):
    """Pooled embeddings of unit length, as the model says."""
    p = parameters(path, context)
    p.embedding = True
    p.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(p)
    rows = [np.array(server.handle_embeddings({"input": [prompt]})["data"][0]["embedding"]) for prompt in prompts]
    del server
    return rows
