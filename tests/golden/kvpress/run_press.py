# SPDX-License-Identifier: Apache-2.0
# Shows one source to one kvpress press, and says which tokens it kept and how clearly.
"""A press wants a transformers attention module and hidden states. Here the query projection is the
identity and the hidden states are the queries, so a press sees exactly the recorded tensors,
through its own unchanged code.
"""

from types import SimpleNamespace

import kvpress
import torch


class Layer(torch.nn.Module):
    """As much of a llama attention layer as a press looks at."""

    def __init__(self, source, dtype):
        super().__init__()
        self.head_dim = source.tensors["keys"].shape[-1]
        self.layer_idx = source.layer
        self.q_proj = torch.nn.Identity()
        self.config = SimpleNamespace(
            num_attention_heads=source.query_heads,
            num_key_value_heads=source.heads,
            num_hidden_layers=source.layers,
            _attn_implementation="sdpa",
        )
        half = torch.arange(0, self.head_dim, 2, dtype=dtype) / self.head_dim
        self.inverse_frequencies = source.rope_base**-half

    def rotary_emb(self, _, position_ids):
        angles = (
            position_ids[..., None].to(self.inverse_frequencies.dtype) * self.inverse_frequencies
        )
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def heads_first(array, dtype):
    """[tokens, heads, head_dim] float16 -> [1, heads, tokens, head_dim] in the given dtype."""
    return torch.from_numpy(array).to(dtype).transpose(0, 1)[None].contiguous()


def hidden_states(source, role, dtype):
    """Queries as hidden states [1, tokens, query_heads * head_dim]; zeros where none are read."""
    queries = torch.from_numpy(source.tensors[role]).to(dtype)
    hidden = torch.zeros(1, source.tokens, queries[0].numel(), dtype=dtype)
    hidden[0, -len(queries) :] = queries.reshape(len(queries), -1)
    return hidden


def full_attention(source, keys, dtype):
    """Causal softmax, [1, query_heads, tokens, tokens]: what eager attention hands to a press."""
    queries = heads_first(source.tensors["queries"], dtype)
    keys = keys.repeat_interleave(source.query_heads // source.heads, dim=1)
    logits = queries @ keys.transpose(2, 3) / keys.shape[-1] ** 0.5
    future = torch.ones(source.tokens, source.tokens, dtype=torch.bool).triu(1)
    return logits.masked_fill(future, float("-inf")).softmax(dim=-1)


def build(name, params, ratio):
    """The press of a case; AdaKV's params hold the press that it wraps."""
    if name == "AdaKV":
        inner = build(params["press"], params["press_params"], ratio)
        return kvpress.AdaKVPress(inner, alpha_safeguard=params["alpha_safeguard"])
    return getattr(kvpress, name + "Press")(compression_ratio=ratio, **params)


def innermost(press):
    return innermost(press.press) if isinstance(press, kvpress.AdaKVPress) else press


def relative_gap(kept, dropped):
    """Between worst kept and best dropped score; infinite where there is nothing to confuse."""
    if kept.numel() == 0 or dropped.numel() == 0:
        return float("inf")
    worst, best = kept.min().item(), dropped.max().item()
    return (worst - best) / max(abs(worst), abs(best), 1e-30)


def run_press(source, name, params, ratio, dtype):
    """Returns (kept indices per head, ascending; relative margin per head)."""
    press = build(name, params, ratio)
    scorer = innermost(press)
    module = Layer(source, dtype)
    keys, values = (heads_first(source.tensors[role], dtype) for role in ("keys", "values"))
    role = "queries_unrotated" if isinstance(scorer, kvpress.ExpectedAttentionPress) else "queries"
    hidden = hidden_states(source, role, dtype)
    observed = isinstance(scorer, kvpress.ObservedAttentionPress)
    attention = full_attention(source, keys, dtype) if observed else None
    # The queries are rotated already: a rotation by nothing.
    still = (
        torch.ones(1, source.tokens, module.head_dim, dtype=dtype),
        torch.zeros(1, source.tokens, module.head_dim, dtype=dtype),
    )
    arguments = (module, hidden, keys, values, attention, {"position_embeddings": still})

    scores = scorer.score(*arguments)[0].clone()
    left, _ = press.compress(*arguments)
    if name == "AdaKV":
        keep = torch.ones(source.heads, source.tokens, dtype=torch.bool)
        _, head_indices, token_indices = module.masked_key_indices
        keep[head_indices, token_indices] = False
        return indices(keep), shared_margins(scores, keep, params["alpha_safeguard"], ratio)
    keep = find_rows(keys[0], left[0])
    if name == "LagKV" and not scorer.cross_scoring:
        return indices(keep), lag_margins(press, arguments, keep)
    return indices(keep), [
        relative_gap(scores[head][keep[head]], scores[head][~keep[head]])
        for head in range(len(keep))
    ]


def indices(keep):
    return [row.nonzero()[:, 0].tolist() for row in keep]


def find_rows(keys, left):
    """Which of the keys [heads, tokens, dim] are left: the press itself does not say."""
    same = (left[:, :, None] == keys[:, None]).all(dim=-1)
    assert (same.sum(dim=2) == 1).all(), "two equal keys: no telling which one was kept"
    return same.any(dim=1)


def shared_margins(scores, keep, alpha, ratio):
    """AdaKV has one cut for all heads, and one per head's protected share where that is lower."""
    n_kept = kvpress.utils.compute_n_kept(scores.shape[-1], ratio)
    safe = max(1, int(n_kept * alpha)) if alpha > 0 else 0
    order = scores.sort(dim=-1, descending=True).values
    protected = torch.zeros_like(keep)
    protected.scatter_(1, scores.topk(safe, dim=-1).indices, True)
    cut = scores[~keep].max()
    shared = relative_gap(scores[keep & ~protected], scores[~keep])
    margins = []
    for head in range(len(keep)):
        own = float("inf")
        if 0 < safe < scores.shape[-1] and order[head, safe - 1] <= cut:
            own = relative_gap(order[head, :safe], order[head, safe:])
        margins.append(min(shared, own))
    return margins


def lag_margins(press, arguments, keep):
    """LagKV ranks inside a partition: what must not tie are raw scores beside each one's cut."""
    raw_press = kvpress.LagKVPress(
        press.compression_ratio, press.n_sink, press.lag_size, cross_scoring=True
    )
    raw = raw_press.score(*arguments)[0]
    lag, sink = press.lag_size, press.n_sink
    parts = (raw.shape[-1] - sink) // lag - 1
    scored = slice(sink, sink + parts * lag)
    shape = (len(keep), parts, lag)
    raw, kept = raw[:, scored].reshape(shape), keep[:, scored].reshape(shape)
    counts = kept.sum(dim=-1)
    assert (
        counts == counts.flatten()[0]
    ).all(), "ranks tie between partitions: choose another ratio"
    return [
        min(
            relative_gap(raw[head, part][kept[head, part]], raw[head, part][~kept[head, part]])
            for part in range(parts)
        )
        for head in range(len(keep))
    ]
