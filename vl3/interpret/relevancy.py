"""Gradient relevancy: attention counts where more of it would have made the word likelier."""

from __future__ import annotations

import torch

from vl3.interpret.attention_rows import QK, unseen
from vl3.interpret.capture import embedded, patched_attention
from vl3.interpret.replay_input import ReplayInput

MOST_BYTES = 1 << 30


def relevancy(model, scene: ReplayInput, token: int) -> torch.Tensor:
    """How much every position mattered for one token of the answer: float32 [L], sums to 1.

    The score of the token is differentiated by the attention weights of all layers; the positive
    part of gradient x weight, averaged over heads, is followed down through the layers.
    Source: Chefer et al., arXiv 2103.15679, equations 5 and 6. Differences: only the row of the
    token is followed; the token's own position is left out and the rest scaled to sum to 1.
    Cost: a forward and a backward pass with all weights of all layers in memory.
    Raises: ValueError when these would take more than MOST_BYTES.
    """
    seen = scene.row(token) + 1
    _check_size(model.config.text_config, seen)
    weights: list[torch.Tensor] = []

    def attend(module, query, key, value, _mask, **options):
        sharing = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(sharing, dim=1) for x in (key, value))
        qk = QK(
            q_HLC=query[0],
            k_HLC=key[0],
            scale=options["scaling"],
            window=options.get("sliding_window"),
        )
        score_BHLL = query.float() @ key.float().mT * qk.scale
        hidden_LL = unseen(qk, torch.arange(seen, device=query.device))
        weights.append(score_BHLL.masked_fill(hidden_LL, -torch.inf).softmax(dim=-1))
        out = weights[-1].to(value.dtype) @ value
        return out.transpose(1, 2).contiguous(), None

    with torch.no_grad():
        embeds_BLE = embedded(model, scene, scene.ids()[:seen])
    with torch.enable_grad(), patched_attention(model, attend):
        # a graph from the first layer on, even where all parameters are frozen
        output = model(inputs_embeds=embeds_BLE.requires_grad_(), use_cache=False, logits_to_keep=1)
        score = output.logits[0, -1, scene.answer_ids[token]]
        gradients = torch.autograd.grad(score, weights)
    reached_L = torch.zeros(seen, device=embeds_BLE.device)
    reached_L[-1] = 1
    for weight_BHLL, gradient_BHLL in zip(reversed(weights), reversed(gradients)):
        step_LL = (weight_BHLL[0].detach() * gradient_BHLL[0]).clamp(min=0).mean(dim=0)
        reached_L = reached_L + reached_L @ step_LL
    reached_L[-1] = 0
    whole_L = torch.zeros(len(scene.ids()), device=reached_L.device)
    whole_L[:seen] = reached_L / reached_L.sum().clamp(min=torch.finfo(torch.float32).tiny)
    return whole_L


def _check_size(text, length: int) -> None:
    """Weights, their gradient and what softmax keeps, in float32, of all layers and heads."""
    needed = 3 * 4 * text.num_hidden_layers * text.num_attention_heads * length**2
    if needed > MOST_BYTES:
        raise ValueError(
            f"gradient relevancy over {length} positions needs about {needed / 1e9:.1f} GB and may "
            f"take {MOST_BYTES / 1e9:.1f} GB; lower max_frames or budget_tokens, or take "
            'source="rollout"'
        )
