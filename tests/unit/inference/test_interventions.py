"""Whoever changes features, mask, weights or code of a model gets the changed model's answers."""

import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

import vl3
from vl3.inference.fingerprint import _sums, checksum, fingerprint, has_own_code
from vl3.messages.media import resize_clip
from vl3.values import Clip

LONG = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(autouse=True)
def restored(studio):
    """Every test gets the model as it was loaded, and empty caches."""
    before = copy.deepcopy(studio.model.state_dict())
    studio.release()
    yield
    studio.model.load_state_dict(before)
    assert not has_own_code(studio.model)


def film(seed=0, frames=6, times=None) -> Clip:
    pixels = np.random.default_rng(seed).integers(0, 255, (frames, 56, 84, 3), dtype=np.uint8)
    pixels[:, :28] = pixels[0, :28]  # half of it stands still, and is pruned
    times = times or tuple(0.5 * n for n in range(frames))
    return Clip(frames_TYX3=pixels, times_s=times, source=f"film{seed}")


def ask(*media, question="What happens?"):
    parts = [{"type": "video", "video": medium} for medium in media]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def cold(studio, messages, **settings):
    """What a studio without a past says."""
    return studio.new_session().reply(messages, **LONG, **settings).token_ids


def maps(studio, reply, **asked):
    return studio.attention(reply, **asked).weight_IHQL


# features and mask


def test_replaced_features_are_what_the_answer_is_about(studio):
    video = studio.open(film())
    plain = studio.reply(ask(video), **LONG)
    other = studio.open(film(1))
    swapped = replace(video, features_MD=other.features_MD)
    reply = studio.reply(ask(swapped), **LONG)
    assert reply.token_ids != plain.token_ids
    # the pictures of another clip under the times and the mask of this one
    alike = replace(other, keep=video.keep)
    assert reply.token_ids == studio.reply(ask(alike), **LONG).token_ids
    assert any("features" in note for note in reply.notes)
    assert not plain.notes
    assert studio.reply(ask(video), **LONG).token_ids == plain.token_ids
    assert studio.reply(ask(film()), **LONG).token_ids == plain.token_ids


def test_the_order_of_features_matters(studio):
    """Sums alone would not tell a clip from its own features in another order."""
    video = studio.open(film())
    turned = video.features_MD.flip(0)
    swapped = video.features_MD.clone()
    swapped[[2, 3]] = swapped[[3, 2]]
    assert len({checksum(each) for each in (video.features_MD, turned, swapped)}) == 3
    plain, looked = studio.reply(ask(video), **LONG), []
    for features_MD in (video.features_MD, turned, swapped):
        reply = studio.reply(ask(replace(video, features_MD=features_MD)), **LONG)
        looked.append(maps(studio, replace(plain, seen=reply.seen)))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(looked[one] - looked[other]).max() > 1e-5


def test_features_edited_in_place_count_for_their_video_alone(studio):
    before = studio.reply(ask(film()), **LONG)
    video = studio.open(film())
    video.features_MD[:5] = 0
    reply = studio.reply(ask(video), **LONG)
    assert reply.token_ids != before.token_ids
    assert studio.reply(ask(film()), **LONG).token_ids == before.token_ids
    video.features_MD.numpy()[5:9] = 0  # which leaves no trace but the values
    assert studio.reply(ask(video), **LONG).token_ids != reply.token_ids
    with pytest.raises(ValueError, match="edited in place since"):
        studio.attention(reply)


def test_maps_of_replaced_features_are_theirs(studio):
    video = studio.open(film())
    plain = studio.reply(ask(video), **LONG)
    swapped = replace(video, features_MD=video.features_MD.flip(0))
    reply = studio.reply(ask(swapped), **LONG)
    both = replace(plain, seen=reply.seen)  # the same words over the other features
    assert np.abs(maps(studio, plain) - maps(studio, both)).max() > 1e-3
    with pytest.raises(ValueError, match="handed over"):
        studio.attention(reply, source="vision", tokens=[0])
    (again,) = studio.videos(reply)
    assert torch.equal(again.features_MD, swapped.features_MD)
    asked_again = studio.reply(ask(again), **LONG)
    assert asked_again.token_ids == reply.token_ids
    assert torch.equal(studio.videos(asked_again)[0].features_MD, swapped.features_MD)
    assert (reply.ledger.reused_clips, asked_again.ledger.reused_clips) == (1, 1)


def test_features_of_another_format_are_taken(studio):
    video = studio.open(film())
    double = replace(video, features_MD=video.features_MD.double() * 2)
    single = replace(video, features_MD=video.features_MD * 2)
    replies = [studio.reply(ask(each), **LONG) for each in (double, single)]
    assert replies[0].token_ids == replies[1].token_ids
    assert np.array_equal(maps(studio, replies[0]), maps(studio, replies[1]))


def own_mask(video, share=3):
    keep_M = torch.arange(video.grid.num_tokens) % share == 0
    return replace(video, keep=replace(video.keep, keep_M=keep_M))


def test_an_own_mask_is_the_one_used(studio):
    video = studio.open(film())
    plain = studio.reply(ask(video), **LONG)
    own = own_mask(video)
    reply = studio.reply(ask(own), **LONG)
    assert reply.ledger.kept_tokens == int(own.keep.keep_M.sum()) != plain.ledger.kept_tokens
    assert any("mask" in note for note in reply.notes)
    (again,) = studio.videos(reply)
    assert torch.equal(again.keep.keep_M, own.keep.keep_M)
    kept_T = own.keep.keep_M.view(video.grid.frames, -1).sum(1).tolist()
    painted = studio.attention(reply).maps()[0][0, 0, 0].reshape(video.grid.frames, -1)
    assert (~np.isnan(painted)).sum(1).tolist() == kept_T
    assert studio.reply(ask(video), **LONG).token_ids == plain.token_ids
    assert "".join(studio.ask(own, "What happens?", **LONG)) == reply.text


def test_a_mask_edited_in_place_is_used(studio):
    video = studio.open(film())
    plain = studio.reply(ask(video), **LONG)
    video.keep.keep_M[video.grid.tokens_per_frame :] = False
    reply = studio.reply(ask(video), **LONG)
    assert reply.ledger.kept_tokens == video.grid.tokens_per_frame
    assert studio.reply(ask(film()), **LONG).token_ids == plain.token_ids


def test_a_mask_and_a_request_to_prune_do_not_go_together(studio):
    video = studio.open(film())
    for prune in (None, {"threshold": 3.0}):
        pruned = studio.reply(ask(video), prune=prune, **LONG)
        assert pruned.token_ids == cold(studio, ask(film()), prune=prune)
        with pytest.raises(ValueError, match="leave prune out to use the mask"):
            studio.reply(ask(own_mask(video)), prune=prune, **LONG)
    # what a reply saw is seen again, under whatever rule that was
    (seen,) = studio.videos(pruned)
    assert studio.reply(ask(seen), **LONG).token_ids == pruned.token_ids


def test_two_versions_of_one_video_in_one_prompt(studio):
    video = studio.open(film())
    halved, other = own_mask(video), replace(video, features_MD=-9 * video.features_MD)
    reply = studio.reply(ask(video, halved, other), **LONG)
    assert [seen.kept_tokens for seen in reply.seen] == [
        int(each.keep.keep_M.sum()) for each in (video, halved, other)
    ]
    assert len({seen.key for seen in reply.seen}) == 2
    orders = [(video, halved, other), (other, halved, video), (video, halved, video)]
    assert len({studio.reply(ask(*each), **LONG).token_ids for each in orders}) == 3


def studio_size(video, clip):
    return resize_clip(clip, video.clip.frames_TYX3.shape[1:3])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: {"features_MD": v.features_MD[:-1]}, "are not those of this model"),
        (lambda v: {"features_MD": v.features_MD[:, :-1]}, "are not those of this model"),
        (lambda v: {"features_MD": v.features_MD.long()}, "floating-point"),
        (lambda v: {"keep": replace(v.keep, keep_M=v.keep.keep_M[:-1])}, "keep_M is bool"),
        (lambda v: {"keep": replace(v.keep, keep_M=v.keep.keep_M.long())}, "keep_M is bool"),
        (lambda v: {"keep": replace(v.keep, grids=())}, "of another grid"),
        (lambda v: {"clip": studio_size(v, film(5))}, "open the changed one"),
        (lambda v: {"clip": replace(v.clip, times_s=(9.0,) * 6)}, "open the changed one"),
        (lambda v: {"clip": replace(v.clip, lost_frames=3)}, "open the changed one"),
        (lambda v: {"clip": replace(v.clip, notes=("Cut.",))}, "open the changed one"),
        (lambda v: {"clip": film(0, 3)}, "does not fill this video's grid"),
        (lambda v: {"grid": replace(v.grid, cols=v.grid.rows, rows=v.grid.cols)}, "does not fill"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(studio, change, sentence):
    video = studio.open(film())
    with pytest.raises(ValueError, match=sentence):
        studio.reply(ask(replace(video, **change(video))), **LONG)


def test_frames_painted_over_are_noticed(studio):
    before = studio.reply(ask(film()), **LONG)
    video = studio.open(film())
    video.clip.frames_TYX3[:] = 0
    with pytest.raises(ValueError, match="no longer in memory"):
        studio.attention(before)
    with pytest.raises(ValueError, match="open the changed one"):
        studio.reply(ask(video), **LONG)
    assert studio.reply(ask(film()), **LONG).token_ids == before.token_ids


# weights


def language(model):
    return model.language.model.layers[0].mlp.down_proj.weight


def vision(model):
    return model.vision.blocks[0].mlp.fc2.weight


def connector(model):
    return next(p for p in model.connector.parameters() if p.ndim > 1)


def by_copy(weight):
    with torch.no_grad():
        weight.mul_(-2)


def by_data(weight):
    weight.data.mul_(-2)


def by_swap(weight):
    weight.data[[0, 1]] = weight.data[[1, 0]]


def by_new_data(weight):
    weight.data = -weight.data


@pytest.mark.parametrize("part", [language, vision, connector])
@pytest.mark.parametrize("edit", [by_copy, by_data, by_swap, by_new_data])
def test_edited_weights_answer_as_a_studio_that_never_knew_others(studio, part, edit):
    reply = studio.reply(ask(film()), **LONG)
    looked, handle = studio.attention(reply), studio.open(film())
    assert not looked.notes
    edit(part(studio.model))
    now = studio.reply(ask(film()), **LONG)
    assert now.token_ids == cold(studio, ask(film())) == studio.reply(ask(handle), **LONG).token_ids
    assert now.ledger.encoded_clips == (part is vision)
    changed = studio.attention(reply)
    assert "as it is now" in changed.notes[0]
    assert np.abs(changed.weight_IHQL - looked.weight_IHQL).max() > 1e-4
    other = studio.new_session()
    other.open(film())
    assert np.array_equal(maps(other, reply), changed.weight_IHQL)


def test_looks_straight_after_an_edit(studio):
    """Nothing was asked in between that would have made the clip anew."""
    reply = studio.reply(ask(film()), **LONG)
    before = maps(studio, reply)
    studio.open(film()).features_MD[:5] = 0
    assert np.array_equal(maps(studio, reply, reuse=False), before)
    by_data(vision(studio.model))
    changed, other = maps(studio, reply), studio.new_session()
    other.open(film())
    assert np.array_equal(maps(other, reply), changed)
    assert np.abs(changed - before).max() > 1e-4


def test_buffers_count_as_weights(studio):
    reply = studio.reply(ask(film()), **LONG)
    frequencies = studio.model.language.model.rotary_emb.inv_freq
    whole = frequencies.clone()
    frequencies.data.mul_(0.3)
    changed = studio.reply(ask(film()), **LONG).token_ids
    assert changed == cold(studio, ask(film()))
    assert fingerprint(studio.model) != reply.model
    frequencies.data.copy_(whole)
    assert studio.reply(ask(film()), **LONG).token_ids == reply.token_ids


def test_one_value_anywhere_is_noticed(studio):
    weight = vision(studio.model).data
    before = fingerprint(studio.model)
    for place in (0, weight.numel() // 2, weight.numel() - 1):
        value = weight.view(-1)[place].item()
        weight.view(-1).numpy()[place] = value + 1e-3
        assert fingerprint(studio.model) != before
        weight.view(-1)[place] = value
    assert fingerprint(studio.model) == before


def test_moved_rows_and_turned_signs_of_any_format():
    """Sums would not tell a row from another some way off, nor an even number of signs."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.int8):
        whole = torch.randn(1536, 244, generator=torch.Generator().manual_seed(0))
        whole = (whole * 9).to(dtype)
        moved = whole.clone()
        moved[[5, 66]] = moved[[66, 5]]
        kinds = (whole, moved, -whole, whole.view(244, 1536))
        assert len({checksum(each) for each in kinds}) == 4
        if dtype is torch.bfloat16:
            assert checksum(whole) != checksum(whole.view(torch.float16))
        assert checksum(whole) == checksum(whole.clone()) == checksum(whole.T.clone().T)


def test_what_a_gpu_sums_notices_values_and_places():
    whole = torch.randn(512, 96, generator=torch.Generator().manual_seed(0))
    changed, moved, far, last = (whole.clone() for _ in range(4))
    changed[300, 7] += 1e-3
    moved[[5, 6]] = moved[[6, 5]]
    far[[5, 66]] = far[[66, 5]]  # a multiple of the remainder apart, in other stretches
    last[-1, -1] = 0
    told = {
        tuple(_sums(x.view(-1).view(torch.uint8)).tolist())
        for x in (whole, changed, moved, far, last, -whole, whole.flip(0))
    }
    assert len(told) == 7


def test_structures_of_the_same_weights():
    """Which layers stand in two places, which weights are tied, of what kind and shape they are."""

    def model(*order, tied=None, active=torch.nn.Tanh):
        torch.manual_seed(0)
        layers = [torch.nn.Linear(4, 4) for _ in range(3)]
        if tied is not None:
            layers[0].weight = layers[tied].weight
        return torch.nn.Sequential(*(layers[index] for index in order), active())

    def as_format(dtype, shape=(4, 4)):
        layer = model(0)
        layer[0].weight.data = layer[0].weight.data.bfloat16().view(dtype).view(shape)
        return layer

    models = [
        model(0, 1, 2),
        model(0, 1, 0),
        model(0, 1, 1),
        model(0, 0, 1),
        model(1, 0, 2),
        model(0, 1),
        model(0, 2),
        model(0, 1, 2, tied=1),
        model(0, 1, 2, tied=2),
        model(0, 1, 2, active=torch.nn.Sigmoid),
        as_format(torch.bfloat16),
        as_format(torch.float16),
        as_format(torch.float16, (2, 8)),
    ]
    assert len({fingerprint(each) for each in models}) == len(models)
    assert fingerprint(models[0]) == fingerprint(model(0, 1, 2))


def test_weights_put_back_are_the_weights_before(studio):
    reply = studio.reply(ask(film()), **LONG)
    whole = language(studio.model).detach().clone()
    by_data(language(studio.model))
    studio.reply(ask(film()), **LONG)
    language(studio.model).data.copy_(whole)
    assert studio.reply(ask(film()), **LONG).token_ids == reply.token_ids
    assert not studio.attention(reply).notes


def test_two_adapters_in_turn(tiny_folder):
    """Added, switched and disabled on the model itself: each time that model's answer."""
    studio = vl3.load(tiny_folder)
    model, plain = studio.model, studio.reply(ask(film()), **LONG).token_ids
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules=["down_proj", "fc2"], init_lora_weights=False)
        model.add_adapter(config, adapter_name=name)
    said = {}
    for name in ("first", "second", "first", "second"):
        model.set_adapter(name)
        reply = studio.reply(ask(film()), **LONG)
        assert reply.token_ids == cold(studio, ask(film()))
        assert said.setdefault(name, reply.token_ids) == reply.token_ids
    model.disable_adapters()
    assert studio.reply(ask(film()), **LONG).token_ids == plain
    model.enable_adapters()
    assert studio.reply(ask(film()), **LONG).token_ids == said["second"]
    assert len({plain, *said.values()}) == 3


def test_merged_adapters_are_noticed(tiny_folder):
    studio = vl3.load(tiny_folder)
    model = studio.model
    torch.manual_seed(0)
    model.add_adapter(LoraConfig(r=4, target_modules=["down_proj"], init_lora_weights=False))
    layers = [part for part in model.modules() if isinstance(part, BaseTunerLayer)]
    before = fingerprint(model)
    for layer in layers:
        layer.merge()
    assert fingerprint(model) != before
    assert studio.reply(ask(film()), **LONG).token_ids == cold(studio, ask(film()))


def test_plain_settings_of_modules_and_configurations(studio):
    model = studio.model
    attention, vision_config = model.language.model.layers[0].self_attn, model.config.vision_config
    for owner, name, value in (
        (attention, "scaling", 0.0),
        (vision_config, "rope_theta", 10.0),
        (model.language.model.norm, "variance_epsilon", 1.0),
    ):
        plain, before = studio.reply(ask(film()), **LONG), getattr(owner, name)
        setattr(owner, name, value)
        try:
            changed = studio.reply(ask(film()), **LONG).token_ids
            assert changed == cold(studio, ask(film()))
            assert fingerprint(model) != plain.model
        finally:
            setattr(owner, name, before)
        assert studio.reply(ask(film()), **LONG).token_ids == plain.token_ids


def test_another_number_format(tiny_folder):
    studio = vl3.load(tiny_folder)
    plain = studio.reply(ask(film()), **LONG)
    video = studio.open(film())
    studio.model.to(torch.bfloat16)
    reply = studio.reply(ask(video), **LONG)
    assert reply.ledger.encoded_clips == 1
    assert reply.token_ids == cold(studio, ask(film()))
    assert studio.attention(plain).notes


@pytest.mark.parametrize("quantize", ["nf4", "nf4+int8"])
def test_quantized_models_keep_what_is_theirs(tiny_folder, quantize):
    pytest.importorskip("bitsandbytes")
    studio = vl3.load(tiny_folder, quantize=quantize, dtype="bfloat16")
    first = studio.reply(ask(film()), **LONG)
    again = studio.reply(ask(film()), **LONG)
    assert again.ledger.reused_clips == 1, "packing weights anew is no edit"
    assert again.ledger.reused_tokens > 0
    assert again.token_ids == first.token_ids
    assert not studio.attention(first).notes
    weight = studio.model.language.model.layers[0].mlp.down_proj.weight
    before = fingerprint(studio.model)
    weight.quant_state.absmax.zero_()
    zeroed = fingerprint(studio.model)
    with torch.no_grad():
        weight.zero_()
    assert len({before, zeroed, fingerprint(studio.model)}) == 3
    edited = studio.reply(ask(film()), **LONG)
    assert edited.ledger.reused_tokens == 0
    assert edited.model != first.model


def test_packed_layers_are_told_by_identity_and_not_by_what_they_note_down():
    bnb = pytest.importorskip("bitsandbytes")
    weight = torch.randn(64, 64)

    def packed(weight):
        layer = bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4")
        layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
        return layer.to("cpu")

    layer, other = packed(weight.clone()), packed(-weight)
    assert torch.equal(layer.weight.quant_state.absmax, other.weight.quant_state.absmax)
    before = fingerprint(layer)
    assert before != fingerprint(other)
    noted = dict(vars(layer))
    layer(torch.randn(2, 64))
    assert vars(layer) != noted
    assert fingerprint(layer) == before


# code of the caller's


def zero(_module, _inputs, output):
    return torch.zeros_like(output)


def halve(_module, inputs):
    return (inputs[0] / 2, *inputs[1:])


def hooked(part, register, hook):
    def put(model):
        handle = getattr(part(model), register)(hook)
        return handle.remove

    return put


def on_all_modules(model):
    def hook(module, _inputs, output):
        return torch.zeros_like(output) if module is model.connector else None

    return torch.nn.modules.module.register_module_forward_hook(hook).remove


def replaced_forward(model):
    layer = model.language.model.layers[0].mlp
    layer.forward = lambda x: torch.zeros_like(x)
    return lambda: vars(layer).pop("forward")


def replaced_on_the_class(model):
    kind = type(model.vision.blocks[0].mlp)
    whole = kind.forward

    @functools.wraps(whole)
    def forward(self, x_ND):
        return whole(self, x_ND) * 3

    kind.forward = forward
    return lambda: setattr(kind, "forward", whole)


def replaced_module(model):
    class Nothing(torch.nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    layer = model.language.model.layers[0]
    whole, layer.mlp = layer.mlp, Nothing()
    return lambda: setattr(layer, "mlp", whole)


def replaced_projection(model):
    model.project = lambda x_KD: model.connector(x_KD) * 0
    return lambda: vars(model).pop("project")


def replaced_encoding(model):
    encode = model.encode_vision
    model.encode_vision = lambda *args: encode(*args) * -2
    return lambda: vars(model).pop("encode_vision")


def method_of_the_class(model):
    kind = type(model)
    whole = kind.project
    kind.project = lambda self, x_KD: whole(self, x_KD) * 0
    return lambda: setattr(kind, "project", whole)


def decorated(model):
    handle = model.connector.register_forward_hook(torch.no_grad()(zero))
    return handle.remove


def first_block(model):
    return model.vision.blocks[0].mlp


def first_layer(model):
    return model.language.model.layers[0].mlp


INTERVENTIONS = {
    "hook on vision": hooked(first_block, "register_forward_hook", zero),
    "pre-hook on vision": hooked(first_block, "register_forward_pre_hook", halve),
    "hook on language": hooked(first_layer, "register_forward_hook", zero),
    "hook on connector": hooked(lambda m: m.connector, "register_forward_hook", zero),
    "hook as partial": hooked(
        first_layer, "register_forward_hook", functools.partial(lambda _, *args: zero(*args), 0)
    ),
    "decorated hook": decorated,
    "on all modules": on_all_modules,
    "forward": replaced_forward,
    "forward of a class": replaced_on_the_class,
    "module": replaced_module,
    "method of the model": replaced_projection,
    "encoding": replaced_encoding,
    "method of the class": method_of_the_class,
}


@pytest.mark.parametrize("put", INTERVENTIONS.values(), ids=INTERVENTIONS)
def test_code_of_a_caller_is_in_every_answer_and_in_none_after(studio, put):
    plain = studio.reply(ask(film()), **LONG)
    looked, handle = maps(studio, plain), studio.open(film())
    remove = put(studio.model)
    try:
        assert has_own_code(studio.model)
        expected = cold(studio, ask(film()))
        assert expected != plain.token_ids
        for messages in (ask(film()), ask(film()), ask(handle)):
            reply = studio.reply(messages, **LONG)
            assert reply.token_ids == expected
            assert reply.ledger.reused_tokens == 0
            assert reply.model == ""
        changed = studio.attention(plain)
        assert np.abs(changed.weight_IHQL - looked).max() > 1e-5
        assert "code of yours" in changed.notes[0]
    finally:
        remove()
    assert studio.reply(ask(film()), **LONG).token_ids == plain.token_ids
    assert studio.reply(ask(handle), **LONG).token_ids == plain.token_ids
    assert np.array_equal(maps(studio, plain), looked)


@pytest.mark.parametrize("part", [first_layer, first_block])
def test_a_hook_whose_mind_changes(studio, part):
    """The same hook object with another strength is another model."""
    strength = [1.0]
    plain = studio.reply(ask(film()), **LONG)
    handle = part(studio.model).register_forward_hook(lambda _m, _i, out: out * strength[0])
    held, said, looked = studio.open(film()), set(), set()
    for strength[0] in (1.0, 0.0, -3.0):
        looked.add(maps(studio, plain).tobytes())  # before anything else is made anew
        reply = studio.reply(ask(held), **LONG)
        assert reply.token_ids == studio.reply(ask(film()), **LONG).token_ids
        said.add(reply.token_ids)
    strength[0] = 2.0
    opened, anew = studio.open(film()), studio.new_session().open(film())
    handle.remove()
    assert torch.equal(opened.features_MD, anew.features_MD)
    assert len(said) == len(looked) == 3


def test_hooks_that_only_listen_hear_everything(studio):
    studio.reply(ask(film()), **LONG)
    heard = {"vision": 0, "language": 0}

    def listen(name):
        def hook(_module, inputs):
            x = inputs[0]
            heard[name] += x.shape[0] if name == "vision" else x.shape[1]

        return hook

    model = studio.model
    hooks = [
        model.vision.blocks[0].mlp.register_forward_pre_hook(listen("vision")),
        first_layer(model).register_forward_pre_hook(listen("language")),
    ]
    reply = studio.reply(ask(film()), max_new_tokens=1)
    for hook in hooks:
        hook.remove()
    assert heard["language"] == reply.ledger.prompt_tokens
    assert heard["vision"] == 4 * reply.ledger.visual_tokens


def test_hooks_of_the_language_model_leave_encoded_clips(studio):
    """A knock-out there need not wait for the encoder: it has no part in the features."""
    studio.reply(ask(film()), **LONG)
    handle = first_layer(studio.model).register_forward_hook(zero)
    reply = studio.reply(ask(film()), **LONG)
    handle.remove()
    assert (reply.ledger.reused_clips, reply.ledger.reused_tokens) == (1, 0)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(torch.nn.Linear, "forward"), (torch.nn.Module, "__call__"), (torch.nn.Module, "_call_impl")],
)
def test_what_a_class_inherits_is_looked_at(monkeypatch, owner, name):
    layer = torch.nn.modules.linear.NonDynamicallyQuantizableLinear(2, 2)
    assert not has_own_code(layer)
    monkeypatch.setattr(owner, name, lambda self, x: x)
    assert has_own_code(layer)


def test_two_attention_functions_of_one_name(studio):
    config, said = studio.model.language.config, set()
    before = config._attn_implementation
    config._attn_implementation = "changing"
    try:
        for factor in (1.0, -3.0, 0.2):

            def scaled(module, query, key, value, mask, factor=factor, **options):
                out, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
                return out * factor, None

            AttentionInterface.register("changing", scaled)
            AttentionMaskInterface.register("changing", sdpa_mask)
            reply = studio.reply(ask(film()), **LONG)
            assert reply.ledger.reused_tokens == 0
            said.add(reply.token_ids)
    finally:
        config._attn_implementation = before
    assert len(said) == 3


def test_an_attention_function_of_the_callers(studio):
    def uniform(module, query, key, value, mask=None, **options):
        out = value.mean(2, keepdim=True).expand(-1, -1, query.shape[2], -1)
        out = out.repeat_interleave(query.shape[1] // key.shape[1], 1)
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register("uniform", uniform)
    config = studio.model.language.config
    plain, before = studio.reply(ask(film()), **LONG), config._attn_implementation
    config._attn_implementation = "uniform"
    try:
        changed = studio.reply(ask(film()), **LONG)
        assert changed.token_ids == cold(studio, ask(film())) != plain.token_ids
        with pytest.raises(ValueError, match="attends by 'uniform'"):
            studio.attention(plain)
    finally:
        config._attn_implementation = before
    assert studio.reply(ask(film()), **LONG).token_ids == plain.token_ids


def test_nothing_goes_to_disk_or_comes_from_it_with_hooks(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "vl3" / "features"
    studio = vl3.load(tiny_folder, features_gb=1)
    handle = first_block(studio.model).register_forward_hook(zero)
    hooked = studio.open(film()).features_MD
    assert not list(folder.iterdir())
    handle.remove()
    plain = studio.open(film())
    assert len(list(folder.iterdir())) == 1
    by_data(vision(studio.model))
    edited = studio.open(film()).features_MD
    assert len(list(folder.iterdir())) == 2
    other = vl3.load(tiny_folder, features_gb=1)
    handle = first_block(other.model).register_forward_hook(zero)
    assert torch.equal(other.open(film()).features_MD, hooked)
    handle.remove()
    found = other.open(film())
    assert found.ledger.encoded_clips == 0
    assert torch.equal(found.features_MD, plain.features_MD)
    assert not torch.equal(edited, plain.features_MD)
    anew = vl3.load(tiny_folder, features_gb=1).open(film(), reuse=False)
    assert anew.ledger.encoded_clips == 1


def test_everything_anew_on_request(studio):
    first = studio.reply(ask(film()), **LONG)
    handle = studio.open(film())
    for messages in (ask(film()), ask(handle)):
        warm, anew = (studio.reply(messages, reuse=reuse, **LONG) for reuse in (True, False))
        assert (warm.ledger.reused_clips, anew.ledger.reused_clips) == (1, 0)
        assert warm.ledger.reused_tokens > 0 == anew.ledger.reused_tokens
        assert first.token_ids == warm.token_ids == anew.token_ids
    assert "".join(studio.ask(handle, "What happens?", reuse=False, **LONG)) == first.text
    assert studio.open(film(), reuse=False).ledger.encoded_clips == 1
    held, known = studio._tracer.nbytes, maps(studio, first)
    assert np.array_equal(maps(studio, first, reuse=False), known)
    assert studio._tracer.nbytes == held == 0, "what was asked anew is not kept"


def test_a_video_of_another_model_is_encoded_here(studio, tiny_folder):
    other = vl3.load(tiny_folder)
    by_data(vision(other.model))
    video = other.open(film())
    reply = studio.reply(ask(video), **LONG)
    assert reply.token_ids == cold(studio, ask(film()))
    assert reply.ledger.encoded_clips == 1
    assert studio.attention(reply).tokens
    same = vl3.load(tiny_folder).open(film())
    assert studio.reply(ask(same), **LONG).ledger.reused_clips == 1
