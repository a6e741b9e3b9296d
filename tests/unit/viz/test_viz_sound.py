"""The sound view's data: what stands in the columns, from one block and from many."""

import base64
import io
import json
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from sounds import clicks, tone

from vl3.sound import RATE_HZ
from vl3.viz import sound

NOISE = np.random.default_rng(0).normal(0, 0.2, 50_000).astype(np.float32)


def columns_of(count: int) -> int:
    return max(1, min(sound.COLUMNS, count // sound.COLUMN_SAMPLES))


@pytest.mark.parametrize("count", [1, 100, 161, 7_000, 50_000])
def test_peaks_are_the_extremes_of_their_columns_however_the_sound_comes(count):
    samples_S, columns = NOISE[:count], columns_of(count)
    whole_C2, bank_ZC = sound.summary([samples_S], count, columns)
    edges = np.arange(columns + 1) * count // columns
    parts = [samples_S[first:end] for first, end in pairwise(edges)]
    expected = [(min(0, part.min()), max(0, part.max())) for part in parts]
    np.testing.assert_array_equal(whole_C2, np.array(expected, np.float32))
    blocks = iter(np.array_split(samples_S, min(7, count)))
    pieces_C2, pieces_ZC = sound.summary(blocks, count, columns)
    np.testing.assert_array_equal(pieces_C2, whole_C2)
    np.testing.assert_allclose(pieces_ZC, bank_ZC, rtol=1e-9)


def test_a_tone_is_one_line_at_its_height_and_a_click_one_column():
    low, high = (tone(2, RATE_HZ, hertz)[0] for hertz in (400, 4000))
    rows = []
    for samples_S in (low, high):
        bank_ZC = sound.summary([samples_S], len(samples_S), 200)[1]
        levels_ZC = sound.levels(bank_ZC)
        rows.append(int(levels_ZC[:, 100].argmax()))
        assert levels_ZC[:, 100].max() == 255
        assert np.median(levels_ZC[:, 100]) < 100
    assert rows[0] > rows[1] + 20  # high bands come first
    click_S = clicks(2, RATE_HZ, [1.0])[0]
    peaks_C2, bank_ZC = sound.summary([click_S], len(click_S), 200)
    assert np.flatnonzero(peaks_C2[:, 1] > 0.5).tolist() == [100]
    assert abs(int(bank_ZC.sum(axis=0).argmax()) - 100) <= 3  # a window is 32 ms, a column 10


def test_every_band_is_of_some_frequency():
    assert (sound.triangles_FZ().max(axis=0) > 0).all()


def test_silence_is_dark():
    bank_ZC = sound.summary([np.zeros(9_000, np.float32)], 9_000, 56)[1]
    assert sound.levels(bank_ZC).max() == 0


def test_the_data_say_where_the_sound_is_and_stay_small():
    count = 50_000
    shown = sound.data([NOISE], count, start_s=-0.5, end_s=4.0, source="a.mp4")
    assert (shown["view"], shown["source"]) == ("sound", "a.mp4")
    assert (shown["start_s"], shown["end_s"]) == (-0.5, -0.5 + count / RATE_HZ)
    assert shown["axis_s"] == [-0.5, 4.0]
    peaks = np.frombuffer(base64.b64decode(shown["peaks"]), np.int8).reshape(-1, 2)
    assert peaks.shape == (shown["columns"], 2)
    assert (peaks[:, 0] < 0).all()
    picture = Image.open(io.BytesIO(base64.b64decode(shown["bank"]["url"].partition(",")[2])))
    assert picture.size == (shown["columns"], sound.MELS)
    long_s = 600
    blocks = (NOISE for _ in range(long_s * RATE_HZ // count))
    assert len(json.dumps(sound.data(blocks, long_s * RATE_HZ))) < 80_000


def test_no_sound_has_no_picture():
    with pytest.raises(ValueError, match="it has no samples"):
        sound.data([], 0)
