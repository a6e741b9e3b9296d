"""The bundled recipes against the paper's tables, written down here a second time."""

import re
from itertools import pairwise

import pytest

from train_cli.__main__ import main
from train_cli.config import BUNDLED, bundled, load_yaml, read_recipe
from train_cli.model_sizes import sizes
from train_cli.plan import TFLOPS, look
from train_cli.recipes import FULL_GB, LORA_GB, RELEASED, choose
from vl3.toyworld.hearing import SOUND_FAMILIES
from vl3.training.optim import rates_for
from vl3.training.plan import Plan, machine_for, make_plan
from vl3.training.recipe import Recipe

STAGES = ("stage1_vision_adaptation", "stage2_alignment", "stage3_multitask", "stage4_video")
ADAPTERS = ("lora", "qlora", "dora")
ABLATIONS = ("ablation_connectors", "ablation_ears", "ablation_hearing")
EARS = ("ear1_align", "ear2_joint")
VIDEOLLAMA2 = (
    "vl2_video1_pretraining",
    "vl2_video2_multitask",
    "vl2_audio1_pretraining",
    "vl2_audio2_finetuning",
    "vl2_audio3_joint",
)
# (vision, connector, language), prune, image merge, samples, samples of each data set in thousands
PAPER = {
    STAGES[0]: ((1e-5, 1e-3, None), False, 1, 15.57e6, (11840, 930, 2800)),
    STAGES[1]: ((2e-6, 1e-5, 1e-5), False, 1, 21.97e6, (12560, 4690, 2680, 40, 1000, 1000)),
    STAGES[2]: (
        (2e-6, 1e-5, 1e-5),
        True,
        1,
        19.05e6,
        (9870, 1310, 1000, 830, 500, 410, 2210, 2920),
    ),
    STAGES[3]: ((2e-6, 1e-5, 1e-5), True, 2, 5.71e6, (3030, 36.2, 210, 880, 1560)),
}


def recipe_of(name: str, size: str = "2b") -> Recipe:
    """A stage as it is; an adapter on a released model with somebody's own clips."""
    own = [
        "--start.model",
        RELEASED[size],
        "--data.own.path",
        "x.jsonl",
        "--data.own.samples",
        "10000",
    ]
    return read_recipe(["--config", name, *(own if name in ADAPTERS else [])])


def planned(recipe: Recipe) -> Plan:
    config = sizes(recipe)
    machine = machine_for(recipe, config, "cuda", bfloat16=True)
    return make_plan(recipe, config, machine, [look(source, recipe) for source in recipe.data])


def test_all_are_here():
    names = [name for name in bundled() if not name.startswith("nano")]
    own = [*STAGES, "7b", *ADAPTERS, *EARS, *VIDEOLLAMA2, *ABLATIONS, "tiny"]
    assert names == sorted(own)
    assert len(names) == 19


@pytest.mark.parametrize("twin", ["", "_7b"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_the_numbers_of_the_paper(stage, twin):
    rates, prune, image_merge, total, thousands = PAPER[stage]
    recipe = recipe_of(stage + twin)
    assert recipe.name == stage + twin
    assert (recipe.rates.vision, recipe.rates.connector, recipe.rates.language) == rates
    assert (recipe.media.prune, recipe.media.image_merge, recipe.media.video_merge) == (
        prune,
        image_merge,
        2,
    )
    assert tuple(source.samples / 1000 for source in recipe.data) == thousands
    assert sum(source.samples for source in recipe.data) == pytest.approx(total, rel=2e-3)
    assert all(source.sets and source.path for source in recipe.data)
    assert (recipe.media.fps, recipe.media.max_frames, recipe.media.visual_tokens) == (
        1,
        180,
        10240,
    )
    assert (recipe.batch.samples, recipe.batch.max_tokens) == (128, 16384)
    optim = recipe.optim
    assert (optim.kind, optim.schedule, optim.warmup, optim.weight_decay, optim.clip) == (
        "adamw",
        "cosine",
        0.03,
        0.0,
        1.0,
    )
    assert (recipe.epochs, recipe.seed, recipe.adapter) == (1.0, 42, None)


@pytest.mark.parametrize("twin", ["", "_7b"])
def test_each_stage_starts_where_the_one_before_ends(twin):
    for before, stage in pairwise(STAGES):
        assert recipe_of(stage + twin).start.model == f"runs/{before}{twin}"
    first = recipe_of(STAGES[0] + twin).start
    wanted = {
        "": ("google/siglip-so400m-patch14-384", "Qwen/Qwen2.5-1.5B-Instruct"),
        "_7b": ("runs/stage4_video", "Qwen/Qwen2.5-7B-Instruct"),
    }
    assert (first.vision, first.language) == wanted[twin]


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_goes_on_any_stage_and_on_a_released_model(name):
    merged = read_recipe(["--config", "stage4_video", "--config", f"{name}.yaml"])
    alone = recipe_of(name)
    for recipe in (merged, alone):
        rates, width = recipe.rates, sizes(recipe).text_config.hidden_size
        assert (rates.vision, rates.connector, rates.language) == (None, None, None)
        assert rates_for(recipe, width).adapter == 4e-4  # the 2B is as wide as the rate is for
        assert (recipe.adapter.rank, recipe.adapter.alpha) == (32, 64)
        assert ("words" in recipe.adapter.on) == (name != "dora")
        assert (recipe.batch.samples, recipe.epochs, recipe.least_steps) == (8, 3, 200)
        assert recipe.adapter.kind == ("dora" if name == "dora" else "lora")
        assert recipe.start.quantize == ("nf4" if name == "qlora" else None)
    assert merged.start.model == "runs/stage3_multitask"
    assert len(merged.data) == 5
    assert [source.name for source in alone.data] == ["own"]


@pytest.mark.parametrize("name", [*STAGES, "7b", *ADAPTERS, *EARS, *VIDEOLLAMA2])
def test_the_memory_in_the_header_is_what_plan_says(name):
    header = (BUNDLED / f"{name}.yaml").read_text(encoding="utf-8").split("\n\n")[0]
    stated = [int(number) for number in re.findall(r"(\d+) GB (?:on|for)", header)]
    recipes = (
        [recipe_of(name, size) for size in ("2b", "7b")]
        if name in ADAPTERS
        else [recipe_of(f"{stage},7b") for stage in STAGES[:2]]
        if name == "7b"
        else [recipe_of(name)]
    )
    found = [planned(recipe).peak_bytes / 1e9 for recipe in recipes]
    assert stated == pytest.approx(found, abs=1)


@pytest.mark.parametrize("name", [*STAGES, *(f"{stage},7b" for stage in STAGES), *VIDEOLLAMA2[:2]])
def test_the_hours_in_the_header_are_what_plan_says(name):
    stage, _, overlay = name.partition(",")
    header = (BUNDLED / f"{overlay or stage}.yaml").read_text(encoding="utf-8").split("\n\n")[0]
    text = " ".join(header.replace("#", " ").split())
    (listed,) = re.findall(r"at least ([\d, and]+) hours", text)
    stated = [int(number) for number in re.findall(r"\d+", listed)]
    expected = stated[STAGES.index(stage) if overlay else 0]
    assert planned(recipe_of(name)).flops / (TFLOPS * 1e12 * 3600) == pytest.approx(
        expected, rel=0.02
    )


def test_the_overlay_7b_by_all_its_names_and_on_nothing_else(capsys):
    given = (
        ["stage4_video,7b"],
        ["stage4_video", "7b"],
        ["stage4_video_7b"],
        ["--config", "stage4_video", "--config=7b"],
        ["--config", "stage4_video,7b"],
    )
    recipes = [read_recipe(arguments) for arguments in given]
    assert all(recipe == recipes[0] for recipe in recipes)
    with_lora = read_recipe(["stage4_video,7b,lora", "--name", "mine"])
    assert with_lora.start.model == "runs/stage3_multitask_7b"
    for wrong in (["7b"], ["nano_stage1,7b"], ["lora,7b"]):
        with pytest.raises(SystemExit) as stopped:
            read_recipe(wrong)
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("error: 7b goes on stage1_vision_adaptation, stage2_alignment")
        assert said.count("\n") == 1


def test_seven_billion_and_24_gb():
    assert planned(recipe_of("qlora", "7b")).peak_bytes < 0.92 * 24e9
    assert planned(recipe_of("lora", "7b")).peak_bytes > 24e9


@pytest.mark.parametrize("size", ["2b", "7b"])
def test_which_knows_the_needs(size):
    stage = "stage4_video" + ("" if size == "2b" else ",7b")
    full, lora = planned(recipe_of(stage)), planned(recipe_of("lora", size))
    assert full.peak_bytes / 0.92e9 == pytest.approx(FULL_GB[size], rel=0.03)
    assert lora.peak_bytes / 0.92e9 == pytest.approx(LORA_GB[size], rel=0.03)
    assert "--config qlora" in choose("own", 1, size)[0]
    assert "--config lora" in choose("own", LORA_GB[size], size)[0]
    assert stage in choose("own", 10 * FULL_GB[size], size)[0]
    command = choose("own", 10 * FULL_GB[size], size)[0].split("run ")[1].replace("'", "")
    assert [source.name for source in read_recipe(command.split()).data] == ["own"]
    assert STAGES[0] in choose("paper", 80, size)[0]


def test_the_curriculum_of_nano_is_one_file_whose_phases_go_on_from_each_other():
    names = [name for name in bundled() if name.startswith("nano")]
    stages = [f"nano_stage{number}" for number in (1, 2, 3, 4)]
    assert names == ["nano_av", "nano_colour", "nano_curriculum", "nano_demo", *stages]
    file = BUNDLED / "nano_curriculum.yaml"
    phases = list(load_yaml(file.read_text(encoding="utf-8"))["phases"])
    assert len(phases) == 11
    recipes = [recipe_of(name) for name in stages]
    recipes += [recipe_of(f"nano_curriculum:{phase}") for phase in phases]
    assert [recipe.name for recipe in recipes[4:]] == [f"nano_{phase}" for phase in phases]
    for before, after in pairwise(recipes):
        assert after.start.model == before.out.format(name=before.name)
    assert recipe_of(f"{file}:letters") == recipe_of("nano_curriculum:letters")
    assert recipes[5].optim.schedule == "linear"  # its own ...
    assert recipes[5].optim.muon_factor == 4.8  # ... and what every phase has


def test_nano_that_hears_begins_with_sound_alone_and_ends_with_everything():
    file = BUNDLED / "nano_av.yaml"
    phases = list(load_yaml(file.read_text(encoding="utf-8"))["phases"])
    recipes = [recipe_of(f"nano_av:{phase}") for phase in phases]
    for before, after in pairwise(recipes):
        assert after.start.model == before.out.format(name=before.name)
    assert recipes[0].start.ear == "nano-whisper"
    assert all(recipe.rates.ear and recipe.rates.audio_connector for recipe in recipes)
    alone = [source for source in recipes[0].data if source.world.alone == 1]
    assert sum(source.samples for source in alone) > 0.8 * sum(s.samples for s in recipes[0].data)
    asked = {name for source in recipes[-1].data for name in source.world.families}
    silent = recipe_of("nano_curriculum:last").data
    assert asked == {name for each in silent for name in each.world.families} | {*SOUND_FAMILIES}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nano_curriculum", "name one, like nano_curriculum:letters - got none"),
        ("nano_curriculum:leters", "got leters; did you mean letters?"),
        ("nano_stage1:letters", "nano_stage1 is one recipe and has no phases"),
        ("nano_curriculm:letters", "did you mean nano_curriculum?"),
    ],
)
def test_a_phase_that_is_not_there_is_one_sentence(name, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        read_recipe(["--config", name])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_a_phase_is_copied_as_a_recipe_of_its_own(tmp_path):
    assert main(["recipes", "copy", "nano_curriculum:three", str(tmp_path)]) == 0
    copied = tmp_path / "nano_curriculum_three.yaml"
    assert recipe_of(str(copied)) == recipe_of("nano_curriculum:three")
