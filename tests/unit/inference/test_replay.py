"""What a finished reply saw, found again: its clips with their masks, its prompt in pieces."""

import numpy as np
import pytest
from clips import write_clip

import vl3
from vl3.values import Clip


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("film") / "film.mp4", 8, 1, size=(96, 144))


def ask(*media, question="What happens?"):
    parts = [{"type": "video", "video": medium} for medium in media]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def still(height=56, width=84) -> Clip:
    frame = np.arange(height * width * 3, dtype=np.uint8).reshape(1, height, width, 3)
    return Clip(frames_TYX3=frame, times_s=None, source="still")


@pytest.mark.parametrize("prune", [None, {"threshold": 20.0}, {"min_tokens": 0, "threshold": 60.0}])
def test_a_replys_clips_come_back_with_the_mask_it_used(studio, film, prune):
    reply = studio.reply(ask(film, still()), prune=prune, max_new_tokens=2)
    studio.reply(ask(film), prune={"threshold": 5.0}, max_new_tokens=1)  # pruned otherwise since
    videos = studio.videos(reply)
    assert [video.keep.kept_per_frame[0] for video in videos] == [
        list(seen.kept_per_frame) for seen in reply.seen
    ]
    bits = [np.packbits(video.keep.keep_M.numpy()).tobytes() for video in videos]
    assert bits == [seen.keep_bits for seen in reply.seen]


def test_a_clip_no_longer_kept_is_named(studio, film):
    reply = studio.reply(ask(film), max_new_tokens=1)
    studio.release()
    with pytest.raises(ValueError, match="medium 1 of this reply is no longer in memory"):
        studio.videos(reply)


@pytest.mark.parametrize("question", ["What happens?", "Is <image> or <|im_end|> a word? 色\n\n "])
@pytest.mark.parametrize("prune", ["model", {"min_tokens": 0, "threshold": 60.0}])
def test_the_pieces_are_the_prompt_and_its_slots(studio, film, question, prune):
    reply = studio.reply(ask(film, still(), question=question), prune=prune, max_new_tokens=1)
    pieces = studio.pieces(reply)
    assert sum(piece.tokens for piece in pieces) == reply.ledger.prompt_tokens
    slots = [piece for piece in pieces if piece.kind == "slots"]
    assert sum(piece.tokens for piece in slots) == reply.ledger.kept_tokens
    kept = {(piece.clip, piece.frame): piece.tokens for piece in slots}
    for clip, seen in enumerate(reply.seen):
        for frame, tokens in enumerate(seen.kept_per_frame):
            assert kept.get((clip, frame), 0) == tokens
    assert [piece.time_s for piece in slots if piece.clip == 1] == [None]
    texts = ["<image>" if piece.kind == "slots" else piece.text for piece in pieces]
    if 0 not in reply.seen[0].kept_per_frame:
        assert "".join(texts) == reply.prompt
    assert [piece.text for piece in pieces if piece.kind == "special"].count("<|im_end|>") == 2
    assert question in "".join(piece.text for piece in pieces if piece.kind == "text")


def test_a_studio_beside_has_the_clips_and_its_own_last_prompt(studio, film):
    studio.release()
    studio.reply(ask(film), max_new_tokens=1)
    held = studio.cached_bytes
    other = studio.new_session(share_encoded=True)
    reply = other.reply(ask(film), prune=None, max_new_tokens=1)
    assert reply.ledger.reused_clips == 1
    assert reply.ledger.reused_tokens == 0
    assert studio.cached_bytes == held
    again = studio.reply(ask(film, question="Why?"), max_new_tokens=1)
    assert again.ledger.reused_tokens > 0


def test_the_parts_of_a_reply_are_no_longer_than_the_reply(studio, film):
    studio.release()
    cold = studio.reply(ask(film), max_new_tokens=4).ledger
    warm = studio.reply(ask(film), max_new_tokens=4).ledger
    for ledger in (cold, warm):
        parts = (ledger.decode_s, ledger.encode_s, ledger.prune_s, ledger.prefill_s)
        assert ledger.prune_s > 0
        assert ledger.prefill_s > 0
        assert sum(parts) <= ledger.first_token_s <= ledger.total_s
    assert cold.encode_s > 0 == warm.encode_s
