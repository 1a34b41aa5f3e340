# SPDX-License-Identifier: MIT
"""clquant generate, and bench with a model, on tests/tiny-llama (numpy says which byte is the likeliest) and on SmolLM2
where CLQ_MODELS has it."""
import json
import signal
import subprocess

import numpy as np
import pytest

from common import CLQ, fails, ok
from test_perplexity import EXACT, SMOLLM2, smollm2
from test_tiny_llama import MODEL, predict

pytestmark = pytest.mark.skipif(not (MODEL / "model.safetensors").is_file(), reason="tiny-llama has no weights")
PROMPT = "When the server is started, the configuration file "


@pytest.fixture(scope="module")
def f32(tmp_path_factory):
    path = tmp_path_factory.mktemp("generate") / "f32.gguf"
    ok("convert", MODEL, path, "--type", "f32", "--device", "ref")
    return path


def generate(model, *args, prompt=PROMPT, n=24, **more):
    told = ok("generate", model, "-p", prompt, "-n", str(n), "--json", "--device", "ref", *args, **more)
    return json.loads(told.stdout)


def greedy(path, prompt, n):
    tokens = list(prompt.encode())
    for _ in range(n):
        tokens.append(int(predict(path, tokens)[-1].argmax()))
    return bytes(tokens[len(prompt):])


@pytest.fixture(scope="module")
def likeliest(f32):
    return greedy(f32, PROMPT, 24).decode()


def test_greedy(f32, likeliest):
    told = generate(f32, "--activations", "f32", "--cache-type", "f32")
    assert told["text"] == likeliest and bytes(told["tokens"]).decode() == likeliest
    assert told["n_prompt"] == len(PROMPT) and told["n_generated"] == 24 and told["reason"] == "length"
    assert told["tokens_per_second"] > 0 and told["prompt_tokens_per_second"] > 0 and told["seconds"] > 0
    r = ok("generate", f32, "-p", PROMPT, "-n", "24", "--activations", "f32", *EXACT)
    assert r.stdout == likeliest + "\n"
    assert f"prompt {len(PROMPT)} tokens in " in r.stderr and "; generated 24 in " in r.stderr
    assert generate(f32)["activations"] == "int8"
    assert generate(MODEL, "--temp", "1", "--top-k", "1", "--activations", "f32")["text"] == likeliest


def test_prompt_of_a_file(f32, likeliest, tmp_path):
    (tmp_path / "prompt.txt").write_text(PROMPT)
    args = ["-n", "24", "--activations", "f32", "--quiet", *EXACT]
    r = ok("generate", f32, "--file", tmp_path / "prompt.txt", *args)
    assert r.stdout == likeliest + "\n" and r.stderr == ""
    with open(tmp_path / "prompt.txt") as f:
        assert ok("generate", f32, "--file", "-", *args, stdin=f).stdout == likeliest + "\n"


def test_stop(f32, likeliest):
    """Every stop text is split over tokens here: a token is a byte."""
    word = likeliest[5:9]
    at = likeliest.index(word)
    told = generate(f32, "--activations", "f32", "--cache-type", "f32", "--stop", "never", "--stop", word)
    assert told["text"] == likeliest[:at] and told["reason"] == "stop" and told["n_generated"] == at + len(word)
    r = ok("generate", f32, "-p", PROMPT, "-n", "24", "--activations", "f32", "--stop", word, *EXACT)
    assert r.stdout == likeliest[:at] + "\n"
    # A text that only begins like a stop text is not lost.
    told = generate(f32, "--activations", "f32", "--cache-type", "f32", "--stop", likeliest[-3:] + "\1")
    assert told["text"] == likeliest and told["reason"] == "length"


def test_seeds(f32):
    args = ["--temp", "1.5", "--top-k", "0", "--top-p", "1", "--min-p", "0"]
    texts = [generate(f32, *args, "--seed", str(seed))["tokens"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    one = generate(f32, "--temp", "1.5", "--top-p", "0.0001")["tokens"]
    assert one == generate(f32, "--temp", "0")["tokens"] == generate(f32, "--temp", "3", "--min-p", "1")["tokens"]


def test_distribution(f32):
    """The first token over 24 seeds is of the likeliest three."""
    top = np.argsort(-predict(f32, list(PROMPT.encode()))[-1])[:3]
    args = ["--temp", "2", "--top-k", "3", "--top-p", "1", "--min-p", "0"]
    seen = {generate(f32, *args, "--seed", str(seed), n=1)["tokens"][0] for seed in range(24)}
    assert seen == set(map(int, top))


def test_context(f32):
    told = generate(f32, "--ctx", str(len(PROMPT) + 4), n=50)
    assert told["reason"] == "context" and told["n_generated"] == 5 # the last one needs no place
    r = ok("generate", f32, "-p", PROMPT, "-n", "50", "--ctx", str(len(PROMPT) + 4), "--device", "ref")
    assert "the context is full (--ctx)" in r.stderr
    fails(3, "generate", f32, "-p", PROMPT, "--ctx", "8", "--device", "ref",
          says=[f"the prompt has {len(PROMPT)} tokens, the context 8"])


def test_usage(f32):
    fails(2, "generate", f32, says="either -p TEXT or --file FILE")
    fails(2, "generate", f32, "-p", "x", "--file", "y", says="either -p TEXT or --file FILE")
    fails(2, "generate", "-p", "x", says="give one model")
    for option, value in [("-n", "0"), ("--temp", "-1"), ("--temp", "nan"), ("--top-k", "-1"), ("--top-p", "0"),
                          ("--top-p", "1.5"), ("--min-p", "2"), ("--seed", "-3"), ("--stop", ""), ("--ctx", "x")]:
        fails(2, "generate", f32, "-p", "x", option, value, says=option)
    fails(2, "generate", f32, "-p", "x", "--system", "y", says="are for --chat")
    fails(3, "generate", f32, "-p", "", "--device", "ref", says="the prompt is empty")
    fails(3, "generate", f32, "-p", "x", "--chat", "--device", "ref", says="template")
    fails(3, "generate", f32, "-p", "x", "--chat", "--chat-template", "nonsense", "--device", "ref", says="nonsense")


def test_chat(f32):
    told = generate(f32, "--chat", "--chat-template", "chatml", "--system", "S", prompt="Hi", n=1)
    plain = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert told["n_prompt"] == len(plain) # a byte a token: these are no tokens of this model


def test_interrupt(f32):
    p = subprocess.Popen([CLQ, "generate", f32, "-p", PROMPT, "-n", "100000", "--ctx", "100000", "--device", "ref"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = p.stdout.read(1)
    p.send_signal(signal.SIGINT)
    rest, told = p.communicate(timeout=60)
    assert p.returncode == 130 and b"interrupted" in told and b"generated" in told
    assert (first + rest).endswith(b"\n")


def test_output(f32):
    with open("/dev/full", "w") as full:
        r = subprocess.run([CLQ, "generate", f32, "-p", "x", "-n", "4", "--device", "ref"], stdout=full,
                           stderr=subprocess.PIPE)
    assert r.returncode == 5 and b"standard output" in r.stderr


@smollm2
def test_smollm2():
    told = generate(SMOLLM2, prompt="The capital of France is", n=2)
    assert told["text"].startswith(" Paris") and told["n_prompt"] == 5
    told = generate(SMOLLM2, "--chat", prompt="Say yes.", n=1)
    assert told["n_prompt"] > 10


# ---- bench ----

def test_bench(f32):
    r = ok("bench", f32, "-p", "16", "-n", "4", "-r", "3", "--device", "ref")
    lines = r.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["test", "pp16", "tg4"]
    for line in lines[1:]:
        median, least, most = map(float, line.split()[1:4])
        assert 0 < least <= median <= most
    told = json.loads(ok("bench", f32, "-p", "16", "-n", "4", "-r", "2", "--device", "ref", "--json").stdout)
    assert told["prompt"]["tokens"] == 16 and told["generation"]["tokens"] == 4 and told["repetitions"] == 2
    assert told["activations"] == "int8" and told["generation"]["weight_bytes_per_second"] > 0
    told = json.loads(ok("bench", f32, "-p", "0", "-n", "2", "-r", "1", "--device", "ref", "--json").stdout)
    assert "prompt" not in told


def test_bench_usage(f32):
    fails(2, "bench", f32, "-p", "0", "-n", "0", says="nothing to measure")
    fails(2, "bench", f32, "-r", "0", says="-r wants")
    fails(2, "bench", f32, "-p", "9", "--ctx", "8", says="--ctx 8 is less than the")
    fails(2, "bench", f32, "--only", "q8_0", says="--only")
    fails(2, "bench", f32, f32, says="give one model")
    fails(2, "bench", "--typo", says="'--typo' is unknown")
    fails(3, "bench", "nowhere.gguf", says="nowhere.gguf")


def test_device(f32):
    """On OpenCL the text is the references'; kernels that fail their self-test are replaced, and that is told."""
    texts = []
    for device, name, value in (("ref", "X", ""), ("cpu", "X", ""), ("cpu", "CLQ_TOGETHER", "0"), ("cpu", "CLQ_TEST_BREAK_KERNEL", "steps")):
        r = ok("generate", f32, "-p", PROMPT, "-n", "24", "--activations", "f32", "--device", device, env={name: value})
        texts.append(r.stdout)
        assert ("a forward pass gives other results" in r.stderr) == (value == "steps"), r.stderr
    assert len(set(texts)) == 1 and texts[0]
