"""The kvpress side of scripts/peer_kvpress.sh: prompts for both sides, then every press at every
ratio on every prompt by kvpress's own pipeline, on the CPU.

    kvpress_cells.py prompts MODEL.gguf TEXT N TOKENS >prompts.jsonl
    kvpress_cells.py run     MODEL.gguf prompts.jsonl THREADS >result.json
    kvpress_cells.py time    kept.json COMMAND...                runs it, adds what it took to its result
    kvpress_cells.py compare result.json... -- kept.json...      prints the ratios of totals

A prompt is a number in a text, in kvpress's column format, which `kept run --jsonl` reads as well.
Prompts have no chat template on either side. The model's weights are the same file; transformers
dequantises them to F32 when it loads them, kept computes with them as they are.
"""
import json
import random
import re
import resource
import statistics
import subprocess
import sys
import time

RATIOS = (0.25, 0.5, 0.75, 0.875)  # of the context that is removed
PRESSES = ("snapkv", "tova", "knorm", "streaming", "expected-attention")  # as kept names them
NEW_TOKENS = 50  # the pipeline's default


def load(path):
    import os

    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoTokenizer

    folder, name = os.path.split(os.path.abspath(path))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.chat_template = None
    return folder, name, tokenizer


def prompts(model, text, n, tokens):
    """Sentences of a text with one to find among them, at depths spread over the prompt."""
    tokenizer = load(model)[2]
    with open(text, encoding="utf-8") as f:
        lines = re.split(r"(?<=[.?!]) ", " ".join(f.read().split()))
    draw = random.Random(1)
    for i in range(n):
        key = draw.choice(("amber", "brisk", "calm", "dusty")) + "-" + draw.choice(("anchor", "basket", "candle"))
        value = str(draw.randrange(1000000, 10000000))
        at, body, depth, used = draw.randrange(len(lines) // 2), [], (i + 0.5) / n, 110 + NEW_TOKENS
        while used < tokens: # what is around the text takes less than 110
            body.append(lines[at])
            used += len(tokenizer.encode(lines[at], add_special_tokens=False)) + 1
            at += 1
        body.pop()
        body.insert(int(depth * len(body)), f"One of the special magic numbers for {key} is: {value}.")
        print(json.dumps({
            "context": "A special magic number is hidden within the following text. Make sure to memorize it. "
                       "I will quiz you about the number afterwards.\n" + "\n".join(body),
            "question": f"\nWhat is the special magic number for {key} mentioned in the provided text?",
            # kvpress puts this newline itself
            "answer_prefix": f"\nThe special magic number for {key} mentioned in the provided text is",
            "answer": value, "max_new_tokens": NEW_TOKENS}))


def run(model_path, prompt_file, threads):
    import gguf
    import kvpress
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    start = time.perf_counter()
    folder, name, tokenizer = load(model_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    model.eval()
    asks = gguf.GGUFReader(model_path).fields.get("tokenizer.ggml.add_bos_token")
    if not (asks and asks.parts[asks.data[0]][0]):
        tokenizer.bos_token = ""  # kept adds none where the model's file asks for none
    pipe = transformers.pipeline("kv-press-text-generation", model=model, tokenizer=tokenizer, device="cpu")
    made = {"snapkv": kvpress.SnapKVPress, "tova": kvpress.TOVAPress, "knorm": kvpress.KnormPress,
            "streaming": kvpress.StreamingLLMPress, "expected-attention": kvpress.ExpectedAttentionPress}
    with open(prompt_file, encoding="utf-8") as f:
        samples = [json.loads(line) for line in f]

    def ask(sample, press):
        began, used = time.perf_counter(), time.process_time()
        answer = pipe(sample["context"], question=sample["question"], press=press,
                      answer_prefix=sample["answer_prefix"].lstrip("\n"),
                      max_new_tokens=sample["max_new_tokens"])["answer"]
        return time.perf_counter() - began, answer, time.process_time() - used

    loaded = time.perf_counter() - start
    ask(samples[0], None)  # warm
    full = [ask(s, None) for s in samples]
    cells = []
    for press in PRESSES:
        for ratio in RATIOS:
            done = [ask(s, made[press](compression_ratio=ratio)) for s in samples]
            cells.append({"press": press, "ratio": ratio, "seconds": sum(d[0] for d in done),
                          "cpu_s": sum(d[2] for d in done),
                          "score": statistics.mean(s["answer"] in d[1] for s, d in zip(samples, done))})
            print(f"  {press} -{100 * ratio:g}%: {cells[-1]['seconds']:.1f} s", file=sys.stderr)
    json.dump({"versions": {m.__name__: m.__version__ for m in (torch, transformers)} | {
                   "kvpress": __import__("importlib.metadata", fromlist=["version"]).version("kvpress")},
               "threads": threads, "load_s": loaded, "samples": len(samples),
               "tokens": [len(tokenizer.encode(s["context"], add_special_tokens=False)) for s in samples],
               "full_s": sum(f[0] for f in full), "full_cpu_s": sum(f[2] for f in full), "full": [f[1] for f in full],
               "full_score": statistics.mean(s["answer"] in f[1] for s, f in zip(samples, full)),
               "cells": cells}, sys.stdout)


def timed(path, command):
    def cpu():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began, before = time.perf_counter(), cpu()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, used = time.perf_counter() - began, cpu() - before
    with open(path, encoding="utf-8") as f:
        doc = json.load(f)
    doc["wall_s"], doc["cpu_s"] = wall, used
    with open(path, "w", encoding="utf-8") as f:
        json.dump(doc, f)


def words(text):
    return re.findall(r"\w+", text)


def compare(theirs, ours):
    """One line a repetition. Full caches first: the two must say the same up to quantisation."""
    for their, our in zip(theirs, ours):
        t, o = json.load(open(their)), json.load(open(our))
        full = [next(x for x in s["outcomes"] if x["variant"] == 0) for s in o["samples"]]
        same = [a.strip() == b["text"].strip() for a, b in zip(t["full"], full)]
        first = [next((k for k, (x, y) in enumerate(zip(words(a), words(b["text"]))) if x != y), None)
                 for a, b in zip(t["full"], full)]
        n_strategies = sum(v["role"] == "strategy" for v in o["variants"])
        assert n_strategies == len(t["cells"]), (n_strategies, len(t["cells"]))
        cells, cpu = sum(c["seconds"] for c in t["cells"]), sum(c["cpu_s"] for c in t["cells"])
        print(f"kvpress {t['versions']['kvpress']}, torch {t['versions']['torch']}, transformers "
              f"{t['versions']['transformers']}, {t['threads']} threads, F32; loaded in {t['load_s']:.1f} s")
        print(f"  prompts {t['samples']} of {t['tokens']} tokens (kept: {[s['n_prefix'] for s in o['samples']]})")
        print(f"  full caches: the same text in {sum(same)} of {len(same)}, first differing word "
              f"{first}; right {100 * t['full_score']:.0f} % there, "
              f"{100 * statistics.mean(x['score'] for x in full):.0f} % here")
        print(f"  {len(t['cells'])} cells: kvpress {cells:.1f} s, {cpu:.1f} s of CPU (besides: the full cache "
              f"{t['full_s']:.1f} s), kept's whole command, two full caches and loading included, "
              f"{o['wall_s']:.1f} s, {o['cpu_s']:.1f} s of CPU: {cells / o['wall_s']:.1f} times the time, "
              f"{cpu / o['cpu_s']:.1f} times the CPU")
        alike = 0
        for c in t["cells"]:
            name = f"{c['press']}@{100 * (1 - c['ratio']):g}%"
            v = next(i for i, v in enumerate(o["variants"]) if v["name"] == name)
            here = next(x["score"] for x in o["cells"] if x["variant"] == v)
            alike += abs(here - c["score"]) < 1e-9
            print(f"    {name:28} right {100 * c['score']:4.0f} % there, {100 * here:4.0f} % here, "
                  f"{c['cpu_s'] / t['samples']:5.1f} s of CPU a prompt there")
        print(f"  as often right there as here in {alike} of {len(t['cells'])} cells")


if __name__ == "__main__":
    what = sys.argv[1]
    if what == "prompts":
        prompts(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    elif what == "run":
        run(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif what == "time":
        timed(sys.argv[2], sys.argv[3:])
    else:
        at = sys.argv.index("--")
        compare(sys.argv[2:at], sys.argv[at + 1:])
