# SPDX-License-Identifier: MIT
"""llama.cpp's tokenizer: the public C functions of the library inside the PyPI package xllamacpp."""
import ctypes as c
import os


class Params(c.Structure):  # llama_model_params; what comes behind vocab_only is not touched
    _fields_ = [("devices", c.c_void_p), ("overrides", c.c_void_p), ("n_gpu_layers", c.c_int32), ("split_mode", c.c_int),
                ("load_mode", c.c_int), ("lazy_mode", c.c_int), ("main_gpu", c.c_int32), ("tensor_split", c.c_void_p),
                ("progress", c.c_void_p), ("user", c.c_void_p), ("kv", c.c_void_p), ("vocab_only", c.c_bool),
                ("flags", c.c_bool * 71)]


class Message(c.Structure):
    _fields_ = [("role", c.c_char_p), ("content", c.c_char_p)]


QUIET = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)(lambda *_: None)


class Llama:
    def __init__(self, path):
        import xllamacpp.xllamacpp as package
        self.lib = c.CDLL(package.__file__)
        self.lib.llama_log_set(QUIET, None)
        self.lib.llama_model_default_params.restype = Params
        params = self.lib.llama_model_default_params()
        params.vocab_only = True
        self.lib.llama_model_load_from_file.restype = c.c_void_p
        self.lib.llama_model_load_from_file.argtypes = [c.c_char_p, Params]
        self.model = self.lib.llama_model_load_from_file(os.fsencode(path), params)
        assert self.model, path
        self.lib.llama_model_get_vocab.restype = c.c_void_p
        self.lib.llama_model_get_vocab.argtypes = [c.c_void_p]
        self.vocab = self.lib.llama_model_get_vocab(self.model)
        self.lib.llama_tokenize.argtypes = [c.c_void_p, c.c_char_p, c.c_int32, c.c_void_p, c.c_int32, c.c_bool, c.c_bool]
        self.lib.llama_vocab_n_tokens.argtypes = [c.c_void_p]
        self.lib.llama_vocab_is_eog.argtypes = [c.c_void_p, c.c_int32]
        self.lib.llama_vocab_is_eog.restype = c.c_bool
        self.lib.llama_token_to_piece.argtypes = [c.c_void_p, c.c_int32, c.c_char_p, c.c_int32, c.c_int32, c.c_bool]

    def tokenize(self, data, special=True, parse=True):
        room = len(data) + 16
        ids = (c.c_int32 * room)()
        n = self.lib.llama_tokenize(self.vocab, data, len(data), ids, room, special, parse)
        assert n >= 0
        return list(ids[:n])

    def count(self):
        return self.lib.llama_vocab_n_tokens(self.vocab)

    def is_end(self, i):
        return self.lib.llama_vocab_is_eog(self.vocab, i)

    def piece(self, i, special=True):
        out = c.create_string_buffer(1 << 14)
        n = self.lib.llama_token_to_piece(self.vocab, i, out, len(out), 0, special)
        return out.raw[:n]

    def chat(self, template, messages, add_assistant):
        array = (Message * len(messages))(*[Message(r.encode(), m.encode()) for r, m in messages])
        out = c.create_string_buffer(1 << 16)
        n = self.lib.llama_chat_apply_template(template.encode(), array, c.c_size_t(len(messages)), c.c_bool(add_assistant),
                                               out, c.c_int32(len(out)))
        return out.raw[:n] if n >= 0 else None
