"""Samples that a run leaves out or shortens: counted once, named, and said at the end."""

import json
import logging

import pytest
import torch
from unit.training.test_trainer import WORLDS, recipe, start  # noqa: F401

from vl3.data.records import BadSample
from vl3.prompt import IGNORE
from vl3.training import run as runs
from vl3.training.left_out import TooManyBad
from vl3.training.recipe import Batch, Rates, Source, Start
from vl3.training.samples import build
from vl3.training.sources import Scenes
from vl3.weights.runs import checkpoints


def row(answer="Ho"):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns})


def run_on(tmp_path, lines, batch=None, **changes):
    data = tmp_path / "lines.jsonl"
    data.write_text("\n".join(lines))
    batch = batch or Batch(samples=4, tokens=700, patches=2000)
    chosen = recipe(
        tmp_path,
        start=Start(model="assets/nano"),
        rates=Rates(connector=1e-3),
        batch=batch,
        data=[Source(name="mine", path=str(data))],
        **changes,
    )
    return runs.run(chosen)


def entries(tmp_path):
    file = tmp_path / "run" / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_the_limit_is_a_share_of_the_set_and_not_of_ten_thousand(tmp_path):
    with pytest.raises(TooManyBad, match=r"2 of 16 samples of 'mine' .*quarantine\.jsonl"):
        run_on(tmp_path, [row()] * 14 + ["not json"] * 2, steps=8)


def test_a_bad_line_counts_once_however_often_it_comes_and_is_said_at_the_end(tmp_path, caplog):
    out = tmp_path / "run"
    out.mkdir()
    (out / "quarantine.jsonl").write_text("of a run that ended before its first checkpoint\n")
    with caplog.at_level(logging.WARNING, logger="vl3"):
        run_on(tmp_path, [row()] * 7 + ["not json"], steps=6)  # three times over
    assert [entry["id"] for entry in entries(tmp_path)] == ["lines.jsonl:8"]
    (said,) = [record.getMessage() for record in caplog.records if "left out" in record.message]
    assert "1 of the samples of 'mine' was left out (1 E101 " in said
    assert "first lines.jsonl:8" in said
    assert json.loads((checkpoints(out)[-1] / "vl3_run.json").read_text())["bad"] == 1


LONG = row("go on " * 400)
SHORT = Batch(samples=4, tokens=700, patches=2000, max_tokens=100)


def test_over_long_samples_are_left_out_without_ending_the_run(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="vl3"):
        run_on(tmp_path, [row()] * 5 + [LONG] * 3, batch=SHORT, steps=2)
    assert {entry["code"] for entry in entries(tmp_path)} == {"E130"}
    assert len(entries(tmp_path)) == 3
    assert "batch.overlong: truncate" in entries(tmp_path)[0]["message"]
    assert "3 of the samples of 'mine' were left out (3 E130 longer than max_tokens)" in caplog.text


def test_over_long_samples_may_be_shortened_instead(tmp_path, caplog):
    cut = Batch(samples=4, tokens=700, patches=2000, max_tokens=100, overlong="truncate")
    with caplog.at_level(logging.WARNING, logger="vl3"):
        last = run_on(tmp_path, [row()] * 5 + [LONG] * 3, batch=cut, steps=2)
    assert entries(tmp_path) == []
    assert "3 times a sample was learned without its end" in caplog.text
    assert json.loads((last / "vl3_run.json").read_text())["cut"] == 3


def test_a_shortened_sample_is_the_beginning_of_the_whole_one(start):  # noqa: F811
    _, processor = start
    record = Scenes("clips", WORLDS["clips"], seed=3)[0]
    whole = build(record, processor, 10240)
    pictures = int((whole.ids_L == processor.slot_ids.image).nonzero()[-1]) + 1
    first = int((whole.labels_L != IGNORE).nonzero()[0])
    for length in (len(whole.ids_L) - 1, len(whole.ids_L) // 2 + first // 2, first + 1):
        short = build(record, processor, 10240, length, overlong="truncate")
        assert short.is_cut
        assert not whole.is_cut
        for name in ("ids_L", "labels_L", "positions_L", "branch_L"):
            assert torch.equal(getattr(short, name), getattr(whole, name)[:length])
        assert torch.equal(short.source_K, whole.source_K)
    for length in (pictures - 1, pictures - 3, first):  # inside a picture; nothing to learn
        with pytest.raises(BadSample, match="tokens") as refused:
            build(record, processor, 10240, length, overlong="truncate")
        assert refused.value.code == "E130"
    with pytest.raises(BadSample, match="overlong: truncate"):
        build(record, processor, 10240, len(whole.ids_L) - 1)
