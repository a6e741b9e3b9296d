"""Run details: where the time went, what stands in the prompt."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl3.values import Ledger, PromptSegment, Reply
from vl3.viz import run

SECONDS = st.floats(0, 1000)


@given(parts=st.lists(SECONDS, min_size=6, max_size=6))
def test_the_stages_are_the_whole_time(parts):
    decode_s, encode_s, prune_s, prefill_s, answer_s, rest_s = parts
    first_token_s = decode_s + encode_s + prune_s + prefill_s + rest_s
    ledger = Ledger(
        decode_s=decode_s,
        encode_s=encode_s,
        prune_s=prune_s,
        prefill_s=prefill_s,
        first_token_s=first_token_s,
        total_s=first_token_s + answer_s,
    )
    stages = run.stages(ledger)
    assert [stage["time_s"] for stage in stages] == pytest.approx(
        [decode_s, encode_s, prune_s, prefill_s, answer_s, rest_s], abs=1e-6
    )
    assert sum(stage["time_s"] for stage in stages) == pytest.approx(ledger.total_s, abs=1e-6)
    assert all(stage["time_s"] >= 0 for stage in stages)


@pytest.mark.parametrize(("temperature", "seed"), [(0.0, None), (0.7, 11)])
def test_the_data_is_plain_and_a_greedy_answer_has_no_seed(temperature, seed):
    reply = Reply(
        text="Red.",
        token_ids=(1, 2),
        prompt="<image>?",
        ledger=Ledger(new_tokens=2),
        settings={"temperature": temperature, "seed": 11},
        notes=("Memory was short.",),
    )
    pieces = [
        PromptSegment(kind="slots", text="", tokens=4, clip=0, frame=0, time_s=0.5),
        PromptSegment(kind="text", text="?", tokens=1),
    ]
    blocks = [{"title": "Python", "text": "import vl3"}]
    data = run.data(reply, pieces, rows=[("Frames", "1")], blocks=blocks)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["seed"] == seed
    assert [piece["tokens"] for piece in data["pieces"]] == [4, 1]
    assert data["notes"] == ["Memory was short."]
