# SPDX-License-Identifier: Apache-2.0
# A Llama model in NumPy whose keys and values are projected, pruned and quantised by formula: it
# shares no code with the library, and the evaluator's figures are held against it.
"""Needs numpy, gguf and tokenizers."""

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "golden"))
from gguf_llama import field, load_tokenizer  # noqa: E402  (found by the line above)

BLOCK = 32


def quantise(numbers, bits):
    """Codes of `bits` with a minimum and a scale in f16 per row: along the last axis."""
    least = numbers.min(-1, keepdims=True).astype(np.float16).astype(np.float32)
    most = numbers.max(-1, keepdims=True)
    scale = ((most - least) / (2**bits - 1)).astype(np.float16).astype(np.float32)
    codes = np.rint(np.divide(numbers - least, scale, out=np.zeros_like(numbers), where=scale > 0))
    return least + scale * np.clip(codes, 0, 2**bits - 1)


class Plain:
    """What a cache keeps: here everything. A kind of cache overrides these."""

    residual = 1 << 30  # newest tokens that are not sealed; up to 31 more wait for their block

    def arrive(self, layer, keys, values):
        """[H, T, D] before rotation, as they are kept from the beginning."""
        return keys, values

    def seal(self, layer, keys, values, turned):
        """The same of sealed tokens: keys after rotation, and values. T is a multiple of 32."""
        return turned, values

    def choose(self, layer, queries, turned):
        """At the prompt's end: rotated queries [Q, T, D] and keys [H, T, D]."""


class Model:
    def __init__(self, path):
        reader = GGUFReader(path)
        self.tokenizer = load_tokenizer(reader)
        get = lambda key: field(reader, f"llama.{key}")
        self.layers = get("block_count")
        self.heads = get("attention.head_count_kv")
        self.query_heads = get("attention.head_count")
        self.dim = get("embedding_length") // self.query_heads
        self.epsilon = get("attention.layer_norm_rms_epsilon")
        self.tensors = {
            tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            for tensor in reader.tensors
        }
        pairs = np.arange(self.dim // 2)
        self.frequencies = get("rope.freq_base") ** (-2.0 * pairs / self.dim)

    def tokens(self, text):
        return self.tokenizer.encode(text).ids

    def weight(self, layer, name):
        return self.tensors[f"blk.{layer}.{name}.weight"]

    def norm(self, numbers, gain):
        mean = np.mean(numbers * numbers, axis=-1, keepdims=True)
        return numbers / np.sqrt(mean + self.epsilon) * gain

    def rotate(self, numbers, positions):
        """[heads, T, D]: neighbours are pairs."""
        angles = np.outer(positions, self.frequencies)
        cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        one, two = numbers[..., 0::2], numbers[..., 1::2]
        turned = np.empty_like(numbers)
        turned[..., 0::2] = one * cosine - two * sine
        turned[..., 1::2] = one * sine + two * cosine
        return turned

    def nats(self, tokens, context, kind):
        """Mean of -log p of tokens[context:], the context being one prompt under a cache of `kind`."""
        scored = len(tokens) - context
        held = [{"keys": [], "values": []} for _ in range(self.layers)]
        cuts = [0, context]  # passes between which nothing is sealed
        for position in range(context + 1, len(tokens) - 1):
            if self.sealed(position, kind) != self.sealed(cuts[-1], kind):
                cuts.append(position)
        cuts.append(len(tokens) - 1)
        total = 0.0
        for first, end in zip(cuts, cuts[1:]):
            start = context - 1 if first == 0 else first
            rows = self.forward(tokens[first:end], first, start, kind, held)
            most = rows.max(-1, keepdims=True)
            norms = most[:, 0] + np.log(np.exp(rows - most).sum(-1, dtype=np.float64))
            wanted = tokens[start + 1 : start + 1 + len(rows)]
            total += float((norms - rows[np.arange(len(rows)), wanted]).sum())
        return total / scored

    @staticmethod
    def sealed(tokens, kind):
        return max(0, tokens - kind.residual) // BLOCK * BLOCK

    def forward(self, tokens, first, start, kind, held):
        """Logits of a pass from position `start` on; `held` gains its keys and values."""
        stream = self.tensors["token_embd.weight"][tokens]
        positions = np.arange(first, first + len(tokens))
        group = self.query_heads // self.heads
        split = lambda rows: rows.reshape(len(tokens), -1, self.dim).transpose(1, 0, 2)
        for layer in range(self.layers):
            here = self.norm(stream, self.weight(layer, "attn_norm"))
            queries = self.rotate(split(here @ self.weight(layer, "attn_q").T), positions)
            keys, values = kind.arrive(
                layer,
                split(here @ self.weight(layer, "attn_k").T),
                split(here @ self.weight(layer, "attn_v").T),
            )
            mine = held[layer]
            mine["keys"] = np.concatenate([mine["keys"], keys], 1) if first else keys
            mine["values"] = np.concatenate([mine["values"], values], 1) if first else values
            every = np.arange(first + len(tokens))
            turned = self.rotate(mine["keys"], every)
            used = mine["values"].copy()
            count = 0 if first == 0 else self.sealed(first, kind)
            if count:
                turned[:, :count], used[:, :count] = kind.seal(
                    layer, mine["keys"][:, :count], used[:, :count], turned[:, :count]
                )
            if first == 0:
                kind.choose(layer, queries, turned)
            logits = queries.reshape(self.heads, group, len(tokens), self.dim) @ turned[
                :, None
            ].transpose(0, 1, 3, 2)
            logits /= np.sqrt(self.dim)
            logits[:, :, every[None, :] > positions[:, None]] = -np.inf
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            mixed = (weights @ used[:, None]).reshape(self.query_heads, len(tokens), self.dim)
            mixed = mixed.transpose(1, 0, 2).reshape(len(tokens), -1)
            stream = stream + mixed @ self.weight(layer, "attn_output").T
            here = self.norm(stream, self.weight(layer, "ffn_norm"))
            gate = here @ self.weight(layer, "ffn_gate").T
            active = gate / (1 + np.exp(-gate)) * (here @ self.weight(layer, "ffn_up").T)
            stream = stream + active @ self.weight(layer, "ffn_down").T
        rows = self.norm(stream[start - first :], self.tensors["output_norm.weight"])
        return rows @ self.tensors.get("output.weight", self.tensors["token_embd.weight"]).T
