"""The project behind the interface that the recorded reference outputs are checked through.

`class Adapter(Base)` fills in every method for this edition of the project. The recorded prompts
hold one slot per visual token *before* pruning; ours hold the kept ones, so `_pruned` drops the
others.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from vl3.audio import released
from vl3.audio.beats import BEATs, own_tensors
from vl3.audio.official import official_sound
from vl3.bundled import HOME
from vl3.connectors import MLPConnector, Windowed, connector_class
from vl3.model import VL3ForConditionalGeneration
from vl3.pipeline import prepare
from vl3.processor import VL3Processor
from vl3.prompt import render
from vl3.values import Clip, Grid, Patches
from vl3.vision import fit_grid
from vl3.vision.prune import prune as diff_fp
from vl3.visual_inputs import to_grids

sys.path.insert(0, str(HOME / "tests"))
from official_reader import read_official


class Adapter(Base):  # noqa: F821 - given by the checking script
    def load_model(self, path, dtype="float32", attn=None):
        model = VL3ForConditionalGeneration.from_pretrained(
            path, dtype=getattr(torch, dtype), **({"attn_implementation": attn} if attn else {})
        )
        model.processor = VL3Processor.from_pretrained(path)
        return model.eval()

    def preprocess(self, model, conversation, template_kwargs, frames=None):
        processor, settings = model.processor, model.processor.settings
        messages = [_message(turn, frames or {}) for turn in conversation]
        prepared = prepare(processor.plan(messages, replace(settings, prune=None)))
        rendered = processor.render(messages, prepared.slots, **template_kwargs)
        out = {"prompt": rendered.text, "input_ids": np.array(rendered.ids)}
        if prepared.media:
            grids = prepared.grids
            out |= {
                "pixel_values": _normalised(prepared.patches.pixels_NP).numpy(),
                "grid_sizes": np.array([[g.frames, g.rows, g.cols] for g in grids]),
                "merge_sizes": np.array([g.merge for g in grids]),
                "modals": [medium.kind for medium in prepared.media],
            }
        return out

    @torch.no_grad()
    def encode(self, model, pixel_values, grid_sizes, merge_sizes):
        pixels = torch.as_tensor(np.asarray(pixel_values))
        features = model.encode_vision(pixels, grid_sizes, merge_sizes)
        return features.float().numpy(), model.project(features).float().numpy()

    def prune_mask(
        self, pixel_values, grid_sizes, merge_sizes, modals, threshold, min_tokens, dtype="float32"
    ):
        pixels = torch.as_tensor(np.asarray(pixel_values)).to(getattr(torch, dtype))
        masks = [np.ones(0, bool)]
        for part, grid, modal in _items(pixels, grid_sizes, merge_sizes, modals):
            if modal == "image":
                masks.append(np.ones(grid.num_tokens, bool))
            elif modal == "video":  # "text" marks an empty picture, which has no mask at all
                patches = Patches(pixels_NP=part, grids=(grid,))
                masks.append(diff_fp(patches, threshold, min_tokens=min_tokens).keep_M.numpy())
        return np.concatenate(masks)

    @torch.no_grad()
    def logits(self, model, inputs, prune):
        return model(**self._pruned(model, inputs, prune)).logits[0].float().numpy()

    @torch.no_grad()
    def generate(self, model, inputs, prune, max_new_tokens, repetition_penalty):
        # From embeddings, as the official code: a repetition penalty then counts new tokens only.
        ready = self._pruned(model, inputs, prune)
        embeds = model.get_input_embeddings()(ready["input_ids"])
        if "visual_embeds" in ready:
            embeds = model.splice(ready["input_ids"], embeds, ready["visual_embeds"])
        new = model.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
            max_new_tokens=max_new_tokens,
            repetition_penalty=repetition_penalty,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        return new[0].numpy()

    def loss(self, model, inputs, labels, prune):
        model.zero_grad()
        ready = self._pruned(model, inputs, prune, labels)
        loss = model(**ready).loss
        loss.backward()
        tied = model.get_input_embeddings().weight
        parts = {"vision_encoder": [], "mm_projector": [], "llm": [], "embed_or_head": [tied]}
        head = model.get_output_embeddings().weight
        if head is not tied:
            parts["embed_or_head"].append(head)
        for name, parameter in model.named_parameters():
            if any(parameter is known for known in parts["embed_or_head"]):
                continue
            owner = {"vision": "vision_encoder", "connector": "mm_projector"}
            parts[owner.get(name.split(".")[0], "llm")].append(parameter)
        norms = {
            part: float(sum(p.grad.double().pow(2).sum() for p in own if p.grad is not None) ** 0.5)
            for part, own in parts.items()
        }
        return float(loss), norms

    def sample_video(self, path, **args):
        if args.pop("precise_time", False):
            raise NotImplementedError
        return read_official(path, **args)

    def target_size(self, kind, count, h, w, patch_size, merge_size, min_tokens, max_tokens, mixed):
        if mixed:  # a second, empty-handed merge size selects the rule for several merge sizes
            from vl3.vision.resize import _fit_mixed

            grid = _fit_mixed(
                [_size(kind, count, h, w)] * (count if kind == "image" else 1),
                [merge_size] * (count if kind == "image" else 1),
                max_tokens,
                patch_size,
            )[0]
        else:
            sizes = [_size(kind, count, h, w)] * (count if kind == "image" else 1)
            grid = fit_grid(sizes, merge_size, max_tokens, patch=patch_size, min_tokens=min_tokens)[
                0
            ]
        return grid.rows * patch_size, grid.cols * patch_size

    def chat(self, model, conversation, add_system_prompt, add_generation_prompt):
        return self._render(
            model,
            conversation,
            [1] * _frames(conversation),
            add_system_prompt,
            add_generation_prompt,
        ).text

    def tokenize(self, model, text):
        return model.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def labels(self, model, conversation, grid_sizes, merge_sizes):
        grids = to_grids(grid_sizes, merge_sizes)
        counts = [n for g in grids for n in [g.tokens_per_frame] * g.frames]
        rendered = self._render(model, conversation, counts, False, False)
        return rendered.ids, rendered.labels

    @torch.no_grad()
    def audio(self, weights, beats_config, projector, fbank, padding_mask=None):
        tensors, tower = load_file(weights), "model.audio_tower."
        config = released.beats_config(beats_config)
        ear = BEATs(config).eval()
        named = {n.removeprefix(tower): t for n, t in tensors.items() if n.startswith(tower)}
        ear.load_state_dict(own_tensors(named, config.encoder_layers))
        project = MLPConnector(
            projector["mm_projector_a_type"],
            projector["mm_hidden_size_a"],
            projector["hidden_size_a"],
        )
        prefix = "model.mm_projector_a."
        project.readout.load_state_dict(
            {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        )
        features = ear.tokens(torch.as_tensor(fbank))
        return features.numpy(), project(features).numpy()

    def audio_fbank(self, path):
        return official_sound(path).bank_AZ.float().numpy()

    @torch.no_grad()
    def connector(self, weights, config, x):
        name = config["mm_projector_type"]
        if connector_class(name) is MLPConnector:  # of this generation, over the mean of time
            name = f"mean_{name}"
        build = connector_class(name)(name, config["mm_hidden_size"], config["hidden_size"])
        there, here = "model.mm_projector.", "layers." if name.startswith("mean_") else ""
        own = {here + key.removeprefix(there): w for key, w in load_file(weights).items()}
        build.load_state_dict(own)
        x_BTRCD = torch.as_tensor(x)
        if x_BTRCD.ndim == 4:
            side = round(x_BTRCD.shape[2] ** 0.5)
            x_BTRCD = x_BTRCD.unflatten(2, (side, side))
        batch, frames, rows, cols, width = x_BTRCD.shape
        grid = Grid(frames=frames, rows=rows, cols=cols, merge=1)
        made = build(x_BTRCD.reshape(-1, width), (grid,) * batch).unflatten(0, (batch, -1))
        is_flat = isinstance(build, Windowed) or x.ndim == 4
        return (made if is_flat else made.unflatten(1, (rows, cols))).numpy()

    def _render(self, model, conversation, counts, system, generation):
        return render(
            conversation,
            model.processor.tokenizer,
            model.processor.slot_ids,
            counts,
            add_system_prompt=system,
            add_generation_prompt=generation,
        )

    def _pruned(self, model, inputs, prune, labels=None):
        """Model inputs whose prompt and features hold the kept tokens only."""
        ids = torch.as_tensor(np.asarray(inputs["input_ids"])).reshape(1, -1).long()
        labels = None if labels is None else torch.as_tensor(np.asarray(labels)).reshape(1, -1)
        if inputs.get("pixel_values") is None:
            ready = {"input_ids": ids}
            return ready if labels is None else ready | {"labels": labels.long()}
        pixels = torch.as_tensor(np.asarray(inputs["pixel_values"]))
        sizes, merges, modals = (inputs[k] for k in ("grid_sizes", "merge_sizes", "modals"))
        keep = torch.as_tensor(self._keep(inputs, prune))
        visual = model.project(model.encode_vision(pixels, sizes, merges))
        slots = model.slots(ids)[0]
        if inputs.get("already_pruned"):
            visual, keep = self._slot_order(model, ids[0], visual, keep, sizes, merges, modals)
        else:
            stays = torch.ones_like(slots)
            stays[slots] = keep
            ids = ids[:, stays]
            labels = None if labels is None else labels[:, stays]
        ready = {"input_ids": ids, "visual_embeds": visual[keep]}
        return ready if labels is None else ready | {"labels": labels.long()}

    def _keep(self, inputs, prune):
        tokens = [grid.num_tokens for grid in to_grids(inputs["grid_sizes"], inputs["merge_sizes"])]
        if not prune:
            return np.ones(sum(tokens), bool)
        if (given := inputs.get("video_mask")) is not None:
            masks, start = [], 0
            for modal, count in zip(inputs["modals"], tokens):
                masks.append(
                    given[start : start + count] if modal == "video" else np.ones(count, bool)
                )
                start += count if modal == "video" else 0
            return np.concatenate(masks)
        return self.prune_mask(
            inputs["pixel_values"],
            inputs["grid_sizes"],
            inputs["merge_sizes"],
            inputs["modals"],
            0.1,
            1,
        )

    def _slot_order(self, model, ids, visual, keep, sizes, merges, modals):
        """The native layout passes videos and images apart: puts their tokens in prompt order."""
        tokens = [grid.num_tokens for grid in to_grids(sizes, merges)]
        kinds = torch.tensor([m == "video" for m, n in zip(modals, tokens) for _ in range(n)])
        visual, kinds = visual[keep], kinds[keep]
        slots = ids[model.slots(ids[None])[0]]
        ordered = torch.empty_like(visual)
        is_video = slots == model.config.video_token_id
        ordered[is_video], ordered[~is_video] = visual[kinds], visual[~kinds]
        return ordered, torch.ones(len(ordered), dtype=torch.bool)


def _message(turn, frames):
    if isinstance(turn["content"], str):
        return turn
    return turn | {"content": [_part(part, frames) for part in turn["content"]]}


def _part(part, frames):
    if isinstance(part, dict) and part.get("type") == "image" and isinstance(part["image"], dict):
        return part | {"image": part["image"]["image_path"]}
    if isinstance(part, dict) and part.get("type") == "video":
        path = part["video"]["video_path"]
        options = {key: value for key, value in part["video"].items() if key != "video_path"}
        pixels, times = frames[path] if path in frames else read_official(path, **options)
        if pixels.shape[-1] != 3:
            pixels = pixels.transpose(0, 2, 3, 1)
        clip = Clip(frames_TYX3=pixels, times_s=tuple(map(float, times)), source=Path(path).name)
        return part | {"video": clip}
    return part


def _normalised(pixels_NP):
    return (pixels_NP.float() / 255 - 0.5) / 0.5


def _items(pixels, grid_sizes, merge_sizes, modals):
    start = 0
    for grid, modal in zip(to_grids(grid_sizes, merge_sizes), modals):
        yield pixels[start : start + grid.num_patches], grid, modal
        start += grid.num_patches


def _size(kind, count, height, width):
    return (1 if kind == "image" else count), height, width


def _frames(conversation):
    parts = [
        p
        for turn in conversation
        if not isinstance(turn["content"], str)
        for p in turn["content"]
        if isinstance(p, dict)
    ]
    return sum(p.get("num_frames", 1) for p in parts if p.get("type") in ("image", "video"))
