# SPDX-License-Identifier: Apache-2.0
# Loads a llama GGUF file into transformers and tokenizers, references that share no code with us.
"""The recording scripts' only way to a model: everything comes out of the GGUF file itself."""

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# GGUF token types: 3 is control, 4 is user defined. Both are matched before any merging.
SPECIAL_TYPES = (3, 4)


def field(reader, key):
    """One metadata value as plain Python; raises KeyError where the file does not have it."""
    return reader.fields[key].contents()


def versions(*packages):
    """What made a recording: the versions of Python and of the named packages."""
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in packages
    }


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def dump(path, value):
    """Compact JSON in ASCII with a final newline; floats are rounded by the caller, never here."""
    Path(path).write_text(json.dumps(value, separators=(",", ":"), ensure_ascii=True) + "\n")


def load_tokenizer(reader):
    """SmolLM2's tokenizer: single digits, then GPT-2's byte-level split, then BPE. Adds no BOS."""
    pieces = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in field(reader, "tokenizer.ggml.merges")]
    types = field(reader, "tokenizer.ggml.token_type")
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(piece, special=True)
            for piece, kind in zip(pieces, types)
            if kind in SPECIAL_TYPES
        ]
    )
    return tokenizer


def undo_permutation(weight, heads):
    """GGUF llama files store q and k rows in adjacent rope pairs; transformers wants two halves."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def load_model(reader, attention="eager"):
    """LlamaForCausalLM in float32, its weights de-quantised by the gguf package."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(field(reader, "tokenizer.ggml.tokens")),
        hidden_size=field(reader, "llama.embedding_length"),
        intermediate_size=field(reader, "llama.feed_forward_length"),
        num_hidden_layers=field(reader, "llama.block_count"),
        num_attention_heads=field(reader, "llama.attention.head_count"),
        num_key_value_heads=field(reader, "llama.attention.head_count_kv"),
        max_position_embeddings=field(reader, "llama.context_length"),
        rms_norm_eps=field(reader, "llama.attention.layer_norm_rms_epsilon"),
        rope_theta=field(reader, "llama.rope.freq_base"),
        tie_word_embeddings=True,
        bos_token_id=field(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=field(reader, "tokenizer.ggml.eos_token_id"),
    )
    names = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name in ("token_embd.weight", "output_norm.weight"):
            target = (
                "model.embed_tokens.weight"
                if tensor.name.startswith("token")
                else "model.norm.weight"
            )
        else:
            _, layer, part, _ = tensor.name.split(".")
            if part == "attn_q":
                weight = undo_permutation(weight, config.num_attention_heads)
            if part == "attn_k":
                weight = undo_permutation(weight, config.num_key_value_heads)
            target = f"model.layers.{layer}.{names[part]}.weight"
        state[target] = torch.from_numpy(np.ascontiguousarray(weight))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]

    config._attn_implementation = attention
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(state, strict=True, assign=True)
    assert not missing and not unexpected
    model.tie_weights()
    # The rope frequencies are a buffer, not a weight: the meta device left them without values.
    rotary = model.model.rotary_emb
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32)
    rotary.inv_freq = 1.0 / config.rope_theta ** (half / config.head_dim)
    rotary.original_inv_freq = rotary.inv_freq
    return model.float().eval()


def open_gguf(path):
    return GGUFReader(str(path))
