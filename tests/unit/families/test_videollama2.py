"""Checkpoints of VideoLLaMA 2 in and out, their prompts, and how they are answered and looked into.

That their logits are those of transformers' own parts is tests/parity/test_videollama2_parts.py.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import noise_clip, write_clip
from language_models import plain_tokenizer, write_language
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig
from videollama2_folders import RELEASES, SIDE, TOWER, write_release

import vl3
from vl3 import video
from vl3.config import VL3Config
from vl3.data.checks import check_medium
from vl3.families import detect, read_config, videollama2
from vl3.families.layouts import LayoutError
from vl3.families.settings import ProcessorSettings
from vl3.families.template import Template
from vl3.hf.chat_template import chat_template
from vl3.inference.memory import need, usual_budget, visual_slots
from vl3.messages.media import find_media
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.prompt import SlotIds, render
from vl3.settings import PruneSettings
from vl3.values import Grid
from vl3.video import Square
from vl3.vision.towers import VisionTower
from vl3.viz import attention as attention_view
from vl3.weights.assemble import assemble
from vl3.weights.export import export
from vl3.weights.sizes import parts, sizes_of

SHORT = {"max_new_tokens": 4}


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Releases by name, each made once."""
    made = {}

    def get(name: str):
        if name not in made:
            tmp = tmp_path_factory.mktemp("release")
            made[name] = write_release(tmp / "checkpoint", name, tmp)
        return made[name]

    return get


@pytest.fixture(scope="module")
def padded(releases):
    """VideoLLaMA2-7B: CLIP, 8 frames, a connector that pads, Llama 2's words."""
    return vl3.load(releases("7B").folder)


@pytest.fixture(scope="module")
def unpadded(releases):
    """VideoLLaMA2.1-7B-16F: SigLIP, 16 frames, a connector that does not, Qwen2's words."""
    return vl3.load(releases("2.1-7B-16F").folder)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A file of 30 frames, three seconds."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_clip(path, 30, fps=10)
    return path


def asks(*media, question="What happens?"):
    parts = [{"type": kind, kind: medium} for kind, medium in media]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def changed_config(release, folder, **changes):
    """The release's folder with another config.json."""
    folder.mkdir()
    for file in release.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    raw = json.loads((folder / "config.json").read_text()) | changes
    raw = {name: value for name, value in raw.items() if value != "gone"}
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


# in


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_loads_with_every_tensor_in_its_place(releases, name):
    release = releases(name)
    model = vl3.load(release.folder).model
    assert isinstance(model.vision, VisionTower)
    theirs = release.tower.state_dict()
    assert theirs.keys() == model.vision.tower.state_dict().keys()
    for part, own in (
        (release.tower, model.vision.tower),
        (release.language, model.language),
        (release.connector, model.connector),
    ):
        for key, tensor in part.state_dict().items():
            assert torch.equal(own.state_dict()[key], tensor), key
    assert model.config.text_config.model_type == RELEASES[name][1]


def test_pickled_tensors_are_read_and_code_is_not(tmp_path):
    release = write_release(tmp_path / "pickled", "7B", tmp_path, pickled=True)
    same = vl3.load(release.folder).model.language.state_dict()
    assert torch.equal(same["lm_head.weight"], release.language.lm_head.weight)

    class Runs:
        def __reduce__(self):
            return (print, ("this must not run",))

    torch.save({"lm_head.weight": Runs()}, release.folder / "pytorch_model.bin")
    with pytest.raises(LayoutError, match="holds more than tensors, which could run code"):
        vl3.load(release.folder)


def test_tensors_that_lack_or_are_unknown_are_listed(releases, tmp_path):
    folder = changed_config(releases("7B"), tmp_path / "part")
    tensors = load_file(folder / "model.safetensors")
    gone = "model.mm_projector.s2.b4.se.fc1.bias"
    del tensors[gone]
    tensors["model.vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.ones(1)
    tensors["model.other.weight"] = torch.ones(1)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(LayoutError, match=r"videollama2 layout") as told:
        vl3.load(folder)
    assert "connector.s2.b4.se.fc1.bias" in str(told.value)
    assert "language.model.other.weight" in str(told.value)
    assert "position_ids" not in str(
        told.value
    )  # older transformers wrote them; nothing needs them


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mm_audio_tower": "audio_tower.bin"}, r"model\.audio_tower\.|audio_connector|ear\."),
        ({"vision_config": "gone"}, "has the vision tower /where/it.*whose sizes are not known"),
        ({"vision_config": {"model_type": "vit"}}, "is of a 'vit'; a tower is one of clip_vision"),
        ({"mm_vision_select_feature": "cls_patch"}, "only 'patch', which leaves the class token"),
        ({"mm_vision_select_layer": -9}, "vision_feature_layer is one of the 3 layers"),
        ({"mm_projector_type": "other"}, "connector is linear or mlpNx_gelu.*got 'other'"),
        ({"mm_projector_type": "spatial_conv"}, "needs an encoder as wide as the language model"),
        ({"hidden_size": 80}, r"mismatched keys: .*connector\.readout"),
    ],
)
def test_what_is_not_read_is_said_in_a_sentence(releases, tmp_path, changes, match):
    folder = changed_config(releases("7B"), tmp_path / "other", **changes)
    with pytest.raises(ValueError, match=match) as told:
        vl3.load(folder)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "connector", ["mlp2x_gelu", "linear", "stp_connector", "stc_connector_v35", "stc_connector"]
)
def test_every_connector_loads_and_answers(tmp_path, film, connector):
    release = write_release(tmp_path / "one", "7B", tmp_path, connector=connector)
    studio = vl3.load(release.folder)
    for key, tensor in release.connector.state_dict().items():
        assert torch.equal(studio.model.connector.state_dict()[key], tensor)
    reply = studio.reply(asks(("video", film)), **SHORT)
    counts = {"mlp2x_gelu": 16, "linear": 16, "stc_connector": 5 * 9}
    assert reply.ledger.visual_tokens == counts.get(connector, 4 * 4)
    assert export_and_back(studio, tmp_path / "out", film) == reply.token_ids


def export_and_back(studio, folder, film):
    export(studio.model, studio.processor, folder, "official")
    return vl3.load(folder).reply(asks(("video", film)), **SHORT).token_ids


def test_towers_are_known_by_name_wherever_they_lay(releases, tmp_path):
    for told, config in {
        "openai/clip-vit-large-patch14-336": (1024, 24, 336),
        "/mnt/weights/siglip-so400m-patch14-384": (1152, 27, 384),
        "apple/DFN5B-CLIP-ViT-H-14-378/": (1280, 32, 378),
    }.items():
        raw = {"mm_vision_tower": told, "mm_vision_select_layer": -3}
        tower = videollama2._tower("x", raw)
        assert (tower.hidden_size, tower.num_hidden_layers, tower.image_size) == config
        assert tower.vision_feature_layer == -3
    clip, siglip, dfn = videollama2.TOWERS.values()
    assert (videollama2.square_of(clip).seen_px, videollama2.square_of(dfn).seen_px) == (336, 378)
    square = videollama2.square_of(siglip)
    assert (square.side_px, square.seen_px, square.fit) == (384, 378, "stretch")
    assert videollama2.square_of(clip, "pad").fill == (122, 116, 104)


def test_sizes_of_releases_are_known_without_a_file():
    """facts: 489 M and 377 M of connector; the hub says 8 B for the first."""
    small = parts(sizes_of("DAMO-NLP-SG/VideoLLaMA2-7B"))
    newer = parts(sizes_of("DAMO-NLP-SG/VideoLLaMA2.1-7B-16F"))
    assert round(small["connector"].parameters / 1e6) == 489
    assert round(newer["connector"].parameters / 1e6) == 377
    assert round(sum(part.parameters for part in small.values()) / 1e7) == 803
    hears = {f"{name[:6]}-AV" for name in RELEASES if name.startswith("2.1")}
    assert len(videollama2._RELEASED) == len({*RELEASES, *hears}) == 6
    assert videollama2.released("DAMO-NLP-SG/VideoLLaMA3-7B") is None
    assert videollama2.released("2-7B") is None


# out


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_goes_out_and_comes_back_equal(releases, film, tmp_path, name):
    release = releases(name)
    studio = vl3.load(release.folder)
    messages = asks(("video", film), ("image", noise_clip(1, frames=1).frames_TYX3[0]))
    before = studio.reply(messages, **SHORT)
    for kind in ("own", "official"):
        lost = export(studio.model, studio.processor, tmp_path / kind, kind)
        assert lost == ()
        again = vl3.load(tmp_path / kind)
        assert again.settings == studio.settings
        assert again.processor.template == studio.processor.template
        after = again.reply(messages, **SHORT)
        assert (after.prompt_ids, after.token_ids) == (before.prompt_ids, before.token_ids)
        studio = again  # the official layout from our own, and so back
    theirs = load_file(release.folder / "model.safetensors")
    ours = load_file(tmp_path / "official/model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    raw = json.loads((tmp_path / "official/config.json").read_text())
    assert raw["model_type"] == f"videollama2_{RELEASES[name][1]}"
    assert (raw["num_frames"], raw["mm_projector_type"]) == (RELEASES[name][3], RELEASES[name][2])
    kind = json.loads((tmp_path / "official/tokenizer_config.json").read_text())["tokenizer_class"]
    assert kind == ("Qwen2Tokenizer" if RELEASES[name][1] == "qwen2" else "LlamaTokenizer")


def test_a_tower_of_a_known_size_goes_out_by_its_name(padded):
    config = VL3Config.from_dict(padded.model.config.to_dict())
    config.vision_config = CLIPVisionConfig(**videollama2.TOWERS[videollama2._CLIP].to_dict())
    raw = videollama2.MISTRAL.write(config, padded.processor)["config.json"]
    assert raw["mm_vision_tower"] == "openai/clip-vit-large-patch14-336"
    assert "vision_config" not in raw


def test_layouts_that_cannot_hold_it_say_so(padded, unpadded, tiny_model, tmp_path):
    with pytest.raises(LayoutError, match="holds a Qwen2 language model, and this one is mistral"):
        export(padded.model, padded.processor, tmp_path / "a", "native")
    with pytest.raises(LayoutError, match="no connector stc_connector_v35"):
        export(unpadded.model, unpadded.processor, tmp_path / "b", "native")
    other = VL3Processor(
        unpadded.processor.tokenizer, unpadded.processor.settings, image_token_id=599
    )
    with pytest.raises(LayoutError, match="has its own prompt format, and this model another"):
        export(unpadded.model, other, tmp_path / "c", "official")


# prompts


def test_the_prompt_is_that_of_llama_2(padded, film):
    reply = padded.reply(asks(("video", film)), **SHORT)
    system = videollama2.LLAMA2.system_prompt
    assert reply.prompt == (
        f"<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n<video>\nWhat happens? [/INST]"
    )
    tokenizer = padded.processor.tokenizer
    before, after = reply.prompt.split("<video>")
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, after)]
    slot = padded.model.config.image_token_id
    assert list(reply.prompt_ids) == [*ids[0], *[slot] * 45, *ids[1]]


def test_the_prompt_is_that_of_qwen2(unpadded, film):
    reply = unpadded.reply(asks(("video", film)), **SHORT)
    assert reply.prompt == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<video>\nWhat happens?<|im_end|>\n<|im_start|>assistant\n"
    )
    slot = unpadded.model.config.image_token_id
    assert slot == 599  # the last row, which no token has
    assert reply.prompt_ids.count(slot) == 8 * 4


TURNS = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
]


def test_later_turns_have_no_system_prompt(padded):
    reply = padded.reply(TURNS, **SHORT)
    system = videollama2.LLAMA2.system_prompt
    assert reply.prompt == (
        f"<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\nOne? [/INST]Two.</s>[INST] Three? [/INST]"
    )
    own = padded.reply([{"role": "system", "content": "Be short."}, *TURNS], **SHORT)
    assert own.prompt.startswith("<s>[INST] <<SYS>>\nBe short.\n<</SYS>>\n\nOne? [/INST]")


@pytest.mark.parametrize("template", [videollama2.LLAMA2, videollama2.QWEN2])
@pytest.mark.parametrize("adds_system", [False, True])
@pytest.mark.parametrize("generates", [False, True])
def test_the_jinja_template_says_the_same(padded, unpadded, template, adds_system, generates):
    """What programs read from the folder renders the text of our own prompt."""
    studio = padded if template is videollama2.LLAMA2 else unpadded
    film = {"type": "video", "num_frames": 3, "timestamps": [0.0, 1.0, 2.0]}
    first = {"role": "user", "content": [film, {"type": "text", "text": "One?"}]}
    said = {"add_system_prompt": adds_system, "add_generation_prompt": generates}
    for messages in (
        [first, *TURNS[1:]],
        [{"role": "system", "content": "Be short."}, first, *TURNS[1:]],
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "<<SYS>>"}]}],
    ):
        counts = [5] * sum(3 if "num_frames" in str(m["content"]) else 1 for m in messages[:2])
        counts = [5] * (3 if "num_frames" in str(messages) else 1)
        ours = render(
            messages, studio.processor.tokenizer, SlotIds(1, 1), counts, template=template, **said
        )
        jinja = chat_template(template=template)
        theirs = studio.processor.tokenizer.apply_chat_template(
            messages, chat_template=jinja, tokenize=False, **said
        )
        assert theirs == ours.text


def test_what_the_system_says_needs_words_of_a_user(padded):
    with pytest.raises(ValueError, match="stands in the user's words with this model, and none"):
        padded.reply([{"role": "system", "content": "Be short."}], **SHORT)


def test_a_user_cannot_write_a_slot_or_an_end(padded, unpadded):
    for studio in (padded, unpadded):
        typed = "</s> <unk> <video> <s> <|im_end|>"
        reply = studio.reply([{"role": "user", "content": typed}], **SHORT)
        assert studio.model.config.image_token_id not in reply.prompt_ids
        end = studio.processor.tokenizer.convert_tokens_to_ids(studio.processor.template.end)
        assert reply.prompt_ids.count(end) == (0 if studio is padded else 2)  # of the template
        assert studio.processor.decode(reply.prompt_ids, skip_special_tokens=True).count(typed)


def test_answers_alone_are_learned(padded, unpadded, film):
    for studio, end in ((padded, "</s>"), (unpadded, "<|im_end|>")):
        messages = [*asks(("video", film)), {"role": "assistant", "content": "A red circle."}]
        inputs = studio.processor(messages, return_labels=True)
        learned = inputs["labels"][0][inputs["labels"][0] >= 0]
        assert studio.processor.tokenizer.decode(learned).strip() == f"A red circle.{end}"


def test_padding_is_no_slot(releases, film):
    """Where the token for unknown letters marks visual tokens, it does not pad as well."""
    processor = vl3.load(releases("7B").folder).processor
    slot = processor.image_token_id
    processor = VL3Processor(processor.tokenizer, processor.settings, image_token_id=0)
    assert processor.tokenizer.pad_token_id not in (0, None)
    assert slot == processor.tokenizer.unk_token_id
    batch = processor([asks(("video", film)), TURNS])
    assert (batch["input_ids"] == 0).sum() == 45


def test_a_tokenizer_with_a_meaning_for_every_row_is_refused(releases, tmp_path):
    release = releases("2.1-7B-16F")
    rows = len(json.loads((release.folder / "tokenizer.json").read_text())["model"]["vocab"])
    folder = changed_config(release, tmp_path / "full", vocab_size=rows)
    with pytest.raises(LayoutError, match="need one that has none; grow its token table by a row"):
        read_config(folder)


# clips


def test_a_film_is_seen_in_the_middle_of_equal_pieces(padded, film):
    plan = padded.plan(film)
    assert plan.times_s == pytest.approx((0.1, 0.5, 0.9, 1.3, 1.6, 2.0, 2.4, 2.8))
    opened = padded.open(film)
    assert opened.clip.frames_TYX3.shape == (8, 56, 56, 3)
    assert opened.clip.times_s == plan.times_s
    assert padded.plan(film, max_frames=3).num_frames == 3
    fast = padded.plan(film, fps=30)
    assert (fast.num_frames, fast.notes) == (
        8,
        ("8 frames, however long the video is: this model does not go by frames per second.",),
    )
    assert padded.plan(film, fps=1).notes == ()  # what the page has unless somebody changes it
    assert padded.plan(film, max_frames=20).num_frames == 20
    assert padded.plan(film, max_frames=200).num_frames == 32  # as far as the budget goes
    assert padded.plan(film, budget_tokens=4 * 16).num_frames == 4
    assert padded.plan(film, start=1, end=2).times_s[0] == pytest.approx(1.0)


def test_a_picture_is_seen_as_often_as_a_film_has_frames(padded, unpadded):
    picture = Image.fromarray(noise_clip(1, frames=1).frames_TYX3[0])
    for studio, steps, each in ((padded, 5, 9), (unpadded, 8, 4)):
        opened = studio.open(picture)
        assert len(opened.features_MD) == SIDE**2  # encoded once
        assert (opened.tokens.depth, opened.tokens.num_tokens) == (steps, steps * each)
        reply = studio.reply(asks(("image", picture)), **SHORT)
        assert "<image>\n" in reply.prompt
        assert reply.seen[0].kept_per_step == (steps * each,)
        inputs = studio.processor(
            asks(("image", picture)), add_generation_prompt=True, add_system_prompt=True
        )
        assert inputs["grid_thw"].tolist() == [[studio.settings.max_frames, SIDE, SIDE]]
        made = studio.model.generate(**inputs, do_sample=False, **SHORT)
        assert tuple(made[0, inputs["input_ids"].shape[1] :].tolist()) == reply.token_ids


def test_frames_that_were_read_are_taken_as_they_are_or_spread(padded):
    eight = noise_clip(frames=8, size=(56, 56), still=False)
    assert np.array_equal(padded.open(eight).clip.frames_TYX3, eight.frames_TYX3)
    many = noise_clip(frames=40, size=(56, 56), still=False)
    assert padded.open(many).clip.times_s == (2, 7, 12, 17, 22, 27, 32, 37)
    few = noise_clip(frames=3, size=(56, 56), still=False)
    assert padded.open(few).clip.times_s == (0, 0, 1, 1, 1, 1, 2, 2)
    official = replace(padded.processor.settings, sampling="official")
    made = padded.processor.plan(asks(("video", few)), official)
    assert made.shown[0].times_s == (0, 1, 2, 2, 2, 2, 2, 2)
    black = made.media[0].read(official, made.grids[0], None)
    assert np.array_equal(black.frames_TYX3[:3], few.frames_TYX3)
    assert not black.frames_TYX3[3:].any()


def test_a_folder_of_frames_is_a_film_of_three_a_second(padded, tiny_processor, tmp_path):
    clip = noise_clip(frames=12, size=(56, 56), still=False)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(clip.frames_TYX3):
        Image.fromarray(frame).save(folder / f"{number:03}.png")
    (folder / "notes.txt").write_text("no picture")
    opened = padded.open(folder)
    taken = [1, 2, 3, 5, 6, 8, 9, 10]
    assert opened.clip.times_s == pytest.approx([index / 3 for index in taken])
    assert np.array_equal(opened.clip.frames_TYX3, clip.frames_TYX3[taken])
    assert padded.plan(folder).times_s == opened.clip.times_s
    part = padded.open(folder, start=1, end=3, max_frames=2)
    assert part.clip.times_s == pytest.approx((4 / 3, 7 / 3))
    again = padded.reply(asks(("video", str(folder))), **SHORT)
    assert again.ledger.reused_clips == 1
    Image.fromarray(clip.frames_TYX3[0]).save(folder / "001.png")  # another picture of that name
    assert padded.open(folder).key != opened.key
    # models that go by time, and folders without pictures, as ever
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="empty is a folder, not a video"):
        padded.open(empty)
    with pytest.raises(ValueError, match="frames is a folder, not a video"):
        tiny_processor(asks(("video", str(folder))))


def test_a_row_of_data_is_measured_without_a_rate(padded, film):
    notes: list = []
    (medium,) = find_media(asks(("video", {"path": str(film), "fps": 2})))
    measured = check_medium(medium, padded.settings, notes)
    assert measured.frames == 8
    assert [note.code for note in notes] == ["W125"]  # that the rate is not used, and no W124


def test_a_single_frame_is_refused_with_the_knob(unpadded, film):
    with pytest.raises(ValueError, match=r"joins 2 frames into a token, and there is 1; raise max"):
        unpadded.open(film, max_frames=1)


# chats


def test_a_second_question_uses_what_was_encoded(padded, film):
    first = padded.reply(asks(("video", film)), **SHORT)
    history = [*asks(("video", film)), {"role": "assistant", "content": first.text or "Yes."}]
    messages = [*history, {"role": "user", "content": "And then?"}]
    warm = padded.reply(messages, **SHORT)
    assert (warm.ledger.reused_clips, warm.ledger.encoded_clips) == (1, 0)
    assert warm.ledger.reused_tokens > 45
    assert warm.token_ids == padded.new_session().reply(messages, **SHORT).token_ids


def test_nothing_is_pruned_and_whoever_asks_is_told(padded, film):
    why = padded.card["unpruned"]
    assert why.startswith("Nothing is pruned with this model: its connector (stc_connector) joins")
    with pytest.raises(ValueError, match="leave prune out"):
        padded.reply(asks(("video", film)), prune=PruneSettings())
    assert "no 2D-RoPE" in padded.card["unrotated"]
    assert "4 x 4 places" in padded.card["unrotated"]


@pytest.mark.parametrize("kind", ["nf4", "nf4+int8", "int8"])
def test_it_answers_in_four_and_eight_bits(releases, film, kind):
    pytest.importorskip("bitsandbytes")
    for name in ("7B", "2.1-7B-16F"):
        studio = vl3.load(releases(name).folder, quantize=kind)
        assert studio.card["quantize"] == kind
        reply = studio.reply(asks(("video", film)), **SHORT)
        assert reply.token_ids
        if kind != "nf4+int8":
            tower = studio.model.vision.tower.state_dict()
            assert all(
                torch.equal(tower[key], tensor)
                for key, tensor in releases(name).tower.state_dict().items()
            )


# looks inside


@pytest.fixture(scope="module")
def both(padded, film):
    """An answer about the film and a picture, and the picture."""
    picture = Image.fromarray(noise_clip(1, frames=1).frames_TYX3[0])
    return padded.reply(asks(("video", film), ("image", picture)), **SHORT), picture


def test_run_details_tell_the_steps_apart(padded, both):
    reply, _ = both
    slots = [piece for piece in padded.pieces(reply) if piece.kind == "slots"]
    told = [(piece.clip, piece.frame, piece.frames, piece.tokens) for piece in slots]
    of_film = [(0, 0, 1, 9), (0, 1, 2, 9), (0, 3, 2, 9), (0, 5, 2, 9), (0, 7, 1, 9)]
    assert told == [*of_film, (1, 0, 1, 45)]
    assert [piece.time_s for piece in slots[:2]] == pytest.approx([0.1, 0.5])
    assert sum(piece.tokens for piece in padded.pieces(reply)) == len(reply.prompt_ids)


def test_a_look_paints_every_token_and_a_picture_with_all_of_its_own(padded, both):
    reply, _ = both
    look = padded.attention(reply)
    film_map, picture_map = (painted[0, 0] for painted in look.maps())
    assert (film_map.shape[1:], picture_map.shape[1:]) == ((8, SIDE, SIDE), (1, SIDE, SIDE))
    visual = look.visual_IHQK[0, 0]
    row = visual[0]
    assert film_map[0, 0, 0, 0] == row[0]
    assert film_map[0, 1, 1, 1] == film_map[0, 2, 2, 2] == row[9 + 4]
    corners = row[45:].reshape(5, 3, 3)
    assert picture_map[0, 0, 0, 0] == pytest.approx(corners[:, 0, 0].sum(), rel=1e-5)
    shares = look.cells.by_frame(visual)
    assert shares[1][:, 0] == pytest.approx(visual[:, 45:].sum(axis=1), rel=1e-5)
    clips = [opened.clip for opened in padded.videos(reply)]
    data = attention_view.data(look, clips, vision=(2, 4))
    assert [medium["frames"] for medium in data["media"]] == [8, 1]
    assert data["sizes"]["slots"] == 90


def test_the_tower_is_asked_where_a_patch_looked(padded, unpadded, both, film):
    reply, picture = both
    look = padded.attention(reply, source="vision", tokens=[9 + 4])  # of frames 1 and 2
    share = look.share_IHQ[..., 0]
    assert share.shape == (2, 4)  # layers that run, heads
    assert (share < 1).all()  # the class token has a share, which is no place
    assert (share > 0.5).all()
    by_layer = padded.attention(reply, source="vision", tokens=[9 + 4], layers=[0], heads=[1])
    model, opened = padded.model, padded.open(film)
    expected = np.zeros(9)
    owner = np.array([0, 1, 1, 2])
    for frame in (1, 2):
        weight_LL = first_attention(model, opened.clip.frames_TYX3[frame], head=1)
        inside = [r * SIDE + c for r in (1, 2) for c in (1, 2)]  # the middle token's patches
        row = weight_LL[1 + np.array(inside), 1:].mean(0).reshape(SIDE, SIDE)
        for r in range(SIDE):
            for c in range(SIDE):
                expected[owner[r] * 3 + owner[c]] += row[r, c] / 2
    steps = by_layer.visual_IHQK[0, 0, 0, 9:18]
    assert steps == pytest.approx(expected, abs=1e-5)
    # a token of a later layer of the picture asks as the first one at its place
    first, later = (
        padded.attention(reply, source="vision", tokens=[45 + 4 + 9 * layer]).visual_IHQK
        for layer in (0, 3)
    )
    assert np.array_equal(first, later)
    whole = unpadded.attention(
        unpadded.reply(asks(("image", picture)), **SHORT), source="vision", tokens=[0]
    )
    assert whole.share_IHQ == pytest.approx(np.ones((2, 4, 1)), abs=1e-5)  # SigLIP has none


def first_attention(model, frame_YX3, head: int) -> np.ndarray:
    """The tower's own attention weights in its first layer, as transformers gives them."""
    tower, implementation = model.vision.tower, model.config.vision_config._attn_implementation
    from vl3.vision import patchify

    grid = Grid(frames=1, rows=SIDE, cols=SIDE, merge=1)
    pixels = model.vision.frames(patchify(frame_YX3[None], grid), (grid,))
    try:
        tower.set_attn_implementation("eager")
        with torch.no_grad():
            return tower(pixels, output_attentions=True).attentions[0][0, head].numpy()
    finally:
        tower.set_attn_implementation(implementation)


# what it costs


def test_memory_counts_squares(padded, film):
    config = padded.model.config
    assert visual_slots(config, 8 * 16) == 45
    assert visual_slots(config, 16 * 16) == 81
    few, many = (
        need(config, quantize=None, device="cpu", itemsize=4, tokens=frames * 16).kept
        for frames in (8, 32)
    )
    session = padded.new_session()
    kept = []
    for frames in (8, 32):
        session.reply(asks(("video", {"path": str(film), "max_frames": frames})), max_new_tokens=1)
        opened = session.open(film, max_frames=frames)
        keys = sum(
            2 * layer.keys[..., : session._prefix.ends[-1], :].nbytes
            for layer in session._prefix.cache.layers
        )
        kept.append(opened.nbytes + keys)
    assert many - few == pytest.approx(kept[1] - kept[0], rel=0.15)
    with pytest.raises(ValueError, match=r"least is"):
        vl3.load(padded.card["path"], memory="1MB")
    bounded = vl3.load(padded.card["path"], memory="1GB")
    assert "up to 512 visual tokens" in bounded.card["note"]
    assert bounded.plan(film).num_frames == 8


def test_a_real_size_on_a_cpu_sees_eight_frames():
    config = sizes_of("DAMO-NLP-SG/VideoLLaMA2-7B-16F")
    assert usual_budget(config) == 32 * 576
    assert usual_budget(config, {"max_frames": 8, "budget_tokens": 2048}) == 8 * 576
    plan = vl3.studio.estimate(
        "DAMO-NLP-SG/VideoLLaMA2-7B-16F", device="cpu", dtype="bfloat16", memory="30GB"
    )
    assert plan.budget_tokens == 8 * 576
    assert plan.quantize is None


# made of parts


@pytest.mark.parametrize("pickled", [False, True])
def test_a_tower_of_the_hub_and_a_language_model_are_assembled(tmp_path, film, pickled):
    """CLIP with its other half, as it is published, some of it as .bin."""
    vision = CLIPVisionConfig(**TOWER, image_size=14 * SIDE)
    whole = CLIPModel(CLIPConfig(vision_config=vision.to_dict())).eval()
    whole.save_pretrained(tmp_path / "clip")
    if pickled:
        tensors = load_file(tmp_path / "clip/model.safetensors")
        torch.save(tensors, tmp_path / "clip/pytorch_model.bin")
        (tmp_path / "clip/model.safetensors").unlink()
    write_language(tmp_path / "llama", "llama", plain_tokenizer("words"))
    model, processor = assemble(tmp_path / "clip", tmp_path / "llama", connector="stc_connector")
    theirs = whole.vision_model.state_dict()
    assert all(
        torch.equal(theirs[key], own) for key, own in model.vision.tower.state_dict().items()
    )
    assert (processor.settings.spread, processor.settings.max_frames) == (True, 8)
    export(model, processor, tmp_path / "own")
    studio = vl3.load(tmp_path / "own")
    reply = studio.reply(asks(("video", film)), **SHORT)
    assert reply.ledger.visual_tokens == 45
    # another prompt format than the released models: times stand before each step
    assert "Time 0.1s:<image>,Time 0.5s:<image>" in reply.prompt


def test_the_tower_of_a_whole_model_serves_another(releases, tmp_path, film):
    write_language(tmp_path / "qwen", "qwen2", plain_tokenizer())
    release = releases("2.1-7B-16F")
    model, processor = assemble(release.folder, tmp_path / "qwen", connector="mlp2x_gelu")
    own = model.vision.tower.state_dict()
    assert all(torch.equal(own[key], one) for key, one in release.tower.state_dict().items())
    assert (processor.settings.square.fit, processor.settings.prune) == ("stretch", PruneSettings())
    inputs = processor(asks(("video", film)))
    assert model(**inputs).logits.shape[1] == inputs["input_ids"].shape[1]
    picture = noise_clip(1, frames=1).frames_TYX3[0]
    assert processor(asks(("image", picture)))["grid_thw"].tolist() == [[1, SIDE, SIDE]]


# settings


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"square": 336}, "square is a vl3.video.Square"),
        ({"square": Square(side_px=60, seen_px=50)}, "is whole patches of 14"),
        ({"video_merge": 2}, "image_merge and video_merge are 1 with it"),
        ({"spread": "yes"}, "spread is"),
    ],
)
def test_settings_that_cannot_be_are_refused(padded, changes, match):
    with pytest.raises(ValueError, match=match):
        replace(padded.processor.settings, **changes)


def test_a_folder_of_ours_keeps_how_pictures_become_squares(padded, tmp_path):
    padded.processor.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "processor_config.json").read_text())
    assert raw["square"] == {"side_px": 56, "seen_px": 56, "fit": "crop", "fill": [122, 116, 104]}
    raw["square"]["fit"] = "pad"
    (tmp_path / "processor_config.json").write_text(json.dumps(raw))
    settings = VL3Processor.from_pretrained(tmp_path).settings
    assert settings == replace(
        padded.processor.settings, square=replace(padded.processor.settings.square, fit="pad")
    )
    for wrong, match in {"no": "square is an object", "fits": "has no setting fits"}.items():
        broken = raw | {"square": "no" if wrong == "no" else raw["square"] | {"fits": 1}}
        (tmp_path / "processor_config.json").write_text(json.dumps(broken))
        with pytest.raises(LayoutError, match=match):
            VL3Processor.from_pretrained(tmp_path)


def test_nothing_of_it_is_written_for_a_model_of_any_size(tiny_processor):
    assert not {"square", "spread"} & tiny_processor.to_dict().keys()
    assert ProcessorSettings().unrotated == ""


def test_templates_that_cannot_be_followed_are_refused():
    with pytest.raises(ValueError, match=r"user of a template has one {} for what is said"):
        Template(user="[INST]")
    with pytest.raises(ValueError, match=r"system of a template has one {}"):
        Template(system="<<SYS>>")
    assert Template(user="U {} U", start="").turn("anybody") == ("U ", " U")


def test_the_family_is_told_by_its_model_type(releases):
    assert detect(releases("7B").folder) is videollama2.MISTRAL
    assert detect(releases("2.1-7B-16F").folder) is videollama2.QWEN
    assert detect(releases("8x7B").folder) is videollama2.MISTRAL
    assert isinstance(video.Square(side_px=2, seen_px=2), Square)
    assert VL3ForConditionalGeneration.config_class is VL3Config
