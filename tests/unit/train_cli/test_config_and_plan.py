"""Recipes from files and the command line; the commands recipes and plan."""

import io
import json
import subprocess
import sys
import tarfile

import pytest

from train_cli.__main__ import main
from train_cli.config import read_recipe
from train_cli.setting_names import descriptions
from vl3.config import nano, videollama3_2b, videollama3_7b
from vl3.training.memory import parts
from vl3.training.recipe import Recipe
from vl3.weights.load import count_parameters

STAGE = ["--config", "stage4_video"]
TINY = """
name: tiny
start: {nano: true}
rates: {vision: 1e-3, connector: 1e-3, language: 1e-3}
data:
- {name: clips, samples: 100, world: {seconds: [3, 6], families: {colour: 1, count: 1}}}
batch: {samples: 32, tokens: 2048, max_tokens: 2048}
"""


def refused(capsys, arguments) -> str:
    """The one sentence that a mistake gives."""
    with pytest.raises(SystemExit) as stopped:
        read_recipe(arguments)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_files_merge_in_order_and_the_command_line_wins(tmp_path):
    local = tmp_path / "local.yaml"
    local.write_text(
        "rates: {vision: null}\noptim: {clip: 2}\nadapter: {rank: 8, on: [vision]}\n"
        "checkpointing: [vision]\n"
    )
    recipe = read_recipe([*STAGE, "--config", "lora", "--config", str(local), "--optim.clip=0.5"])
    assert (recipe.rates.vision, recipe.rates.language, recipe.optim.clip) == (None, None, 0.5)
    assert (recipe.adapter.rank, recipe.adapter.alpha, recipe.adapter.on) == (8, 64, ["vision"])
    assert recipe.checkpointing == ["vision"]
    assert recipe.name == "lora"


def test_names_ahead_of_all_options_are_recipes():
    expected = read_recipe([*STAGE, "--config", "lora", "--optim.clip", "0.5"])
    assert read_recipe(["stage4_video", "lora", "--optim.clip", "0.5"]) == expected
    assert read_recipe(["stage4_video", "--config", "lora", "--optim.clip=0.5"]) == expected


@pytest.mark.parametrize(
    ("start", "made_of"),
    [
        (["--start.nano", "true"], "start.nano"),
        (["--start.vision", "a", "--start.language", "b"], "start.vision and start.language"),
    ],
)
def test_an_adapter_on_a_model_that_is_nowhere_else_is_refused(start, made_of, capsys):
    sentence = refused(capsys, ["lora", *start, "--data.own.path", "x.jsonl"])
    assert f"what {made_of} makes is in this run only; train it without adapter first" in sentence
    read_recipe(["lora", "--start.model", "runs/mine", "--data.own.path", "x.jsonl"])


def test_one_data_set_by_its_name():
    given = ["--data.text.path", "a=b.jsonl", "--data.text.samples=7", "--data.text.sets", "[x, y]"]
    data = {source.name: source for source in read_recipe([*STAGE, *given]).data}
    assert (data["text"].path, data["text"].samples, data["text"].sets) == (
        "a=b.jsonl",
        7,
        ["x", "y"],
    )
    assert data["image"].path == "data/stage4/image.jsonl"
    assert len(data) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--optim.clpi", "3"], "optim.clpi; did you mean optim.clip?"),
        (["--clip", "3"], "did you mean optim.clip?"),
        (["--optim.cl", "3"], "there is no setting optim.cl"),
        (["--adapter.rnak", "3"], "did you mean adapter.rank?"),
        (["--optim.clip", "hi"], "optim.clip: expected float, got hi"),
        (["--optim.kind", "sgd"], "'adamw', 'muon', got sgd"),
        (["--media.fps", "x"], "media.fps: expected float or null, got x"),
        (["--data.txet.path", "x"], "no data set 'txet'; did you mean text?"),
        (["--data.text.pth", "x"], "did you mean data.path?"),
        (["--data.text.path"], "--data.text.path needs a value"),
        (["--config", "stage4_vidoe"], "did you mean stage4_video"),
        (["--rates.adapter", "1e-4"], "name both or neither"),
        (["--optim.clip", "1", "lora"], "a recipe is named by --config lora"),
    ],
)
def test_a_mistake_on_the_command_line(arguments, words, capsys):
    assert words in refused(capsys, [*STAGE, *arguments])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optim: {clpi: 3}", "mine.yaml: there is no setting optim.clpi; did you mean optim.clip?"),
        ("data: [{name: x, pth: y}]", "did you mean data.path?"),
        ("evaluate: {sources: [{nmae: x}]}", "did you mean evaluate.sources.name?"),
        ("optim: {clip: ", "mine.yaml is not YAML at line"),
        ("just words", "holds no settings"),
    ],
)
def test_a_mistake_in_a_file(text, words, capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    assert words in refused(capsys, [*STAGE, "--config", str(tmp_path / "mine.yaml")])


def test_the_printed_config_is_the_same_recipe(capsys, tmp_path):
    arguments = [*STAGE, "--config", "qlora", "--data.text.samples", "5", "--optim.eps", "1e-7"]
    with pytest.raises(SystemExit) as stopped:
        read_recipe([*arguments, "--print_config"])
    assert stopped.value.code == 0
    (tmp_path / "whole.yaml").write_text(capsys.readouterr().out)
    assert read_recipe(["--config", str(tmp_path / "whole.yaml")]) == read_recipe(arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"], ["plan", "--optim.x", "1"]])
def test_help_and_mistakes_need_no_torch(arguments):
    code = (
        "import sys\nfrom train_cli.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert "AssertionError" not in done.stderr
    assert done.returncode == (2 if "--optim.x" in arguments else 0), done.stderr


@pytest.mark.parametrize("command", ["run", "plan"])
def test_help_describes_every_setting(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    lines = capsys.readouterr().out.split("options:")[1].splitlines()
    text = " ".join(" ".join(lines).split())
    for name, words in descriptions(Recipe):
        assert f"--{name}" in text, name
        assert words in text, name
    assert text.count("--data.NAME.world.shaky share of clips that shake") == 1
    assert text.count("--adapter.rank numbers between") == 1


def test_recipes_are_listed_shown_and_copied(capsys, tmp_path):
    assert main(["recipes", "list", "--json"]) == 0
    assert "24 GB" in json.loads(capsys.readouterr().out)["qlora"]
    assert main(["recipes", "show", "lora"]) == 0
    shown = capsys.readouterr().out
    assert main(["recipes", "copy", "lora", str(tmp_path)]) == 0
    assert (tmp_path / "lora.yaml").read_text() == shown
    with pytest.raises(SystemExit) as stopped:
        main(["recipes", "copy", "lora", str(tmp_path)])
    assert stopped.value.code == 2, "nothing is overwritten"


def test_which_asks_or_takes_flags(capsys, monkeypatch):
    flags = ["--goal", "own", "--memory-gb", "24", "--size", "7b"]
    assert main(["recipes", "which", *flags]) == 0
    assert "--config qlora --start.model DAMO-NLP-SG/VideoLLaMA3-7B" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin.readline", lambda: "", raising=False)
    with pytest.raises(SystemExit) as stopped:
        main(["recipes", "which", *flags[:2]])
    assert stopped.value.code == 2
    assert "--memory-gb" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config",
    [videollama3_2b(), videollama3_7b(), nano(vocab_size=704, image_token_id=5)],
    ids=["2b", "7b", "nano"],
)
def test_parameters_are_counted_to_the_last(config):
    assert sum(part.parameters for part in parts(config).values()) == count_parameters(config)


def test_plan_says_what_a_run_needs(capsys, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    assert main(["plan", "--config", str(tmp_path / "tiny.yaml"), "--on", "cpu", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["steps"], plan["samples"], plan["assumed"]) == (4, 128, [])
    assert 100 < plan["tokens"] / plan["samples"] < 500
    assert plan["peak_bytes"] == pytest.approx(sum(plan["memory"].values()))


ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
OWN = ["--rates.connector", "1e-3", "--name", "own"]


def planned(capsys, *arguments):
    """The plan in words."""
    assert main(["plan", *OWN, *map(str, arguments), "--on", "cpu", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert main(["plan", *OWN, *map(str, arguments), "--on", "cpu"]) == 0
    return plan, capsys.readouterr().out


@pytest.mark.parametrize("name", ["own.jsonl", "own.json", "shards-*.tar"])
def test_plan_counts_files_of_all_formats_and_never_calls_them_missing(name, capsys, tmp_path):
    rows = [ROW] * 3
    if name.endswith(".tar"):
        with tarfile.open(tmp_path / "shards-0.tar", "w") as tar:
            for number, row in enumerate(rows):
                data = json.dumps(row).encode()
                info = tarfile.TarInfo(f"{number}.json")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    else:
        lines = "\n".join(map(json.dumps, rows))
        (tmp_path / name).write_text(json.dumps(rows) if name.endswith(".json") else lines)
    own = ["--data.own.path", tmp_path / name, "--batch.samples", "3"]
    plan, said = planned(capsys, "--start.model", "DAMO-NLP-SG/VideoLLaMA3-2B", *own)
    assert plan["samples"] == 3
    assert "not here" in said
    assert "whose files are not here" not in said
    assert "since the tokenizer of DAMO-NLP-SG/VideoLLaMA3-2B is not here" in said
    plan, said = planned(capsys, "--start.model", "assets/nano", *own)
    assert plan["samples"] == 3
    assert plan["measured"]
    assert "not here" not in said
    assert "disk: " in said


def test_plan_is_not_sized_by_rows_that_training_leaves_out(capsys, tmp_path):
    long = {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "go on " * 4_000},
        ]
    }
    lines = [*map(json.dumps, [ROW, long, ROW]), "not json"]
    (tmp_path / "own.jsonl").write_text("\n".join(lines))
    own = [
        "--start.model",
        "assets/nano",
        "--data.own.path",
        tmp_path / "own.jsonl",
        "--batch.max_tokens",
        1000,
    ]
    plan, said = planned(capsys, *own)
    assert "2 of 4 samples of own that were looked at are left out in training" in said
    assert plan["shape"]["row"] < 100
    assert plan["tokens"] / plan["samples"] < 100
    plan, said = planned(capsys, *own, "--batch.overlong", "truncate")
    assert "1 of 4 samples" in said
    assert plan["shape"]["row"] == 1000


def test_plan_refuses_what_cannot_fit(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["plan", *STAGE, "--memory", "24GB"])
    assert stopped.value.code == 4
    out, err = capsys.readouterr()
    assert "44,658 steps" in out
    assert "a guess of 2048" in out
    assert "at least 158.6 hours" in out
    assert "disk: 70.6 GB for checkpoints of 23.5 GB" in out
    assert "lower" in err
    assert "--config lora" in err
    assert main(["plan", *STAGE, "--memory", "80GB", "--quiet"]) == 0
    with pytest.raises(SystemExit) as stopped:
        main(["plan", *STAGE, "--memory", "lots"])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("options", "processes", "measured", "begins"),
    [
        ([], 1, True, False),
        (["--anyway"], 1, True, True),
        ([], 2, True, True),
        ([], 1, False, True),
    ],
)
def test_run_does_not_begin_what_cannot_fit(
    options, processes, measured, begins, capsys, tmp_path, monkeypatch
):
    begun = []
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setattr("train_cli.plan.describe_device", lambda on, limit: ("cpu", False, 1e6))
    monkeypatch.setattr("train_cli.run.train", lambda begin, quiet: begun.append(begin) or 0)
    if not measured:
        monkeypatch.setattr("train_cli.plan.local_processor", lambda recipe: None)
    (tmp_path / "tiny.yaml").write_text(TINY)
    arguments = ["run", str(tmp_path / "tiny.yaml"), *options]
    if begins:
        assert main(arguments) == 0
    else:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 4
        assert "the CPU has 1 MB to use; lower batch.tokens" in capsys.readouterr().err
    assert len(begun) == begins
