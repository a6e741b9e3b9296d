"""Memory of reading a long clip: bounded by the frames kept, not by the frames decoded.

The clip lasts an hour at 1080p but has one frame every 15 s, so that it can be made in seconds. It
shows that no full-size picture is kept: the 64 wanted ones alone would take 400 MB. A busier hour
has larger packets, of which one is held at a time, and a longer list of times (50 bytes a frame).
"""

import subprocess
import sys

import numpy as np
from clips import numbered, write_clip

CODE = """
import resource, sys
import numpy as np, av, PIL.Image
import vl3.video as video
rss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = rss()
clip = video.read(sys.argv[1], max_frames=64, size=(336, 616))
assert clip.frames_TYX3.shape == (64, 336, 616, 3), clip.frames_TYX3.shape
assert clip.times_s[-1] > 3400
assert clip.times_s == video.schedule(sys.argv[1], max_frames=64).times_s
print(rss() - before)
"""


def test_an_hour_of_1080p_keeps_no_full_size_frame(tmp_path):
    picture = np.ascontiguousarray(numbered(1234, 1080, 1920))
    path = write_clip(
        tmp_path / "hour.mp4",
        pictures=[picture] * 240,
        fps=2,
        times=[30 * k for k in range(240)],
        gop=24,
        codec_options={"preset": "ultrafast", "crf": "40"},
    )
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300
