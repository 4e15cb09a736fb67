# SPDX-License-Identifier: Apache-2.0
# The tensors that the presses are shown: seeded random ones, and ones recorded from SmolLM2.
"""A Source is what one attention layer saw. Every tensor is float16 here, so that press and kvast
read the same numbers; axes are [tokens, heads, head_dim], and the last query always belongs to the
last token."""

from dataclasses import dataclass, field

import numpy as np

HEAD_DIM = 64
RANDOM_SHAPES = ((8, 8), (9, 3), (8, 1))  # query heads, heads
RANDOM_TOKENS = (97, 256)
RANDOM_WINDOW = 64
# These sources carry every query, rotated and not, for the presses that look at all of them.
RANDOM_COMPLETE = ((9, 3, 97), (8, 1, 97))
MODEL_LAYERS = (2, 14, 26)
MODEL_COMPLETE = (2, 14)
MODEL_TOKENS = 300
MODEL_WINDOW = 64


@dataclass
class Source:
    name: str
    query_heads: int
    heads: int
    tokens: int
    layer: int  # of `layers`; random sources are the middle one of 30
    layers: int
    rope_base: float
    tensors: dict = field(default_factory=dict)  # role -> float16 array

    @property
    def complete(self):
        return len(self.tensors["queries"]) == self.tokens

    def tensor_name(self, role):
        return f"{self.name}_{role}"


def rounded(array):
    half = np.ascontiguousarray(array, dtype=np.float16)
    assert np.isfinite(half).all()
    return half


def random_source(query_heads, heads, tokens, seed):
    """Keys with a common direction and uneven lengths, as real ones; queries with a direction."""
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return generator.standard_normal(shape)

    complete = (query_heads, heads, tokens) in RANDOM_COMPLETE
    keys = (normal(tokens, heads, HEAD_DIM) + 0.5 * normal(1, heads, HEAD_DIM)) * np.exp(
        0.25 * normal(tokens, heads, 1)
    )
    values = normal(tokens, heads, HEAD_DIM) * np.exp(0.25 * normal(tokens, heads, 1))
    queries = normal(tokens, query_heads, HEAD_DIM) + normal(1, query_heads, HEAD_DIM)
    unrotated = normal(tokens, query_heads, HEAD_DIM) + normal(1, query_heads, HEAD_DIM)
    source = Source(
        f"random_{query_heads}_{heads}_{tokens}", query_heads, heads, tokens, 15, 30, 10000.0
    )
    source.tensors["queries"] = rounded(queries if complete else queries[-RANDOM_WINDOW:])
    source.tensors["keys"] = rounded(keys)
    source.tensors["values"] = rounded(values)
    if complete:
        source.tensors["queries_unrotated"] = rounded(unrotated)
    return source


def random_sources():
    shapes = [(*shape, tokens) for shape in RANDOM_SHAPES for tokens in RANDOM_TOKENS]
    return [random_source(*shape, seed) for seed, shape in enumerate(shapes, start=1)]


def model_sources(gguf, story):
    """What some layers of SmolLM2 saw of the first MODEL_TOKENS tokens of the story."""
    import torch
    from gguf_llama import load_model, load_tokenizer, open_gguf
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    reader = open_gguf(gguf)
    ids = load_tokenizer(reader).encode(story.read_text()).ids[:MODEL_TOKENS]
    model = load_model(reader)
    config = model.config
    projected = {}
    hooks = [
        model.model.layers[layer].self_attn.q_proj.register_forward_hook(
            lambda module, inputs, output, layer=layer: projected.__setitem__(layer, output)
        )
        for layer in MODEL_LAYERS
    ]
    cache = model(torch.tensor([ids]), use_cache=True).past_key_values
    for hook in hooks:
        hook.remove()

    sources = []
    for layer in MODEL_LAYERS:
        # [1, heads, tokens, head_dim], as transformers has them; its cache holds rotated keys.
        unrotated = (
            projected[layer]
            .view(1, MODEL_TOKENS, config.num_attention_heads, HEAD_DIM)
            .transpose(1, 2)
        )
        keys, values = cache.layers[layer].keys, cache.layers[layer].values
        cosine, sine = model.model.rotary_emb(values, torch.arange(MODEL_TOKENS)[None])
        queries, _ = apply_rotary_pos_emb(unrotated, unrotated, cosine, sine)
        by_token = [
            tensor[0].transpose(0, 1).numpy() for tensor in (queries, keys, values, unrotated)
        ]
        source = Source(
            f"model_{layer}",
            config.num_attention_heads,
            config.num_key_value_heads,
            MODEL_TOKENS,
            layer,
            config.num_hidden_layers,
            config.rope_theta,
        )
        complete = layer in MODEL_COMPLETE
        source.tensors["queries"] = rounded(
            by_token[0] if complete else by_token[0][-MODEL_WINDOW:]
        )
        source.tensors["keys"] = rounded(by_token[1])
        source.tensors["values"] = rounded(by_token[2])
        if complete:
            source.tensors["queries_unrotated"] = rounded(by_token[3])
        sources.append(source)
    return sources
