"""What the peers call roles, parts, sources and options of messages, and what each means here."""

# What is written: what it means. "developer" is OpenAI's newer name for the system.
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "stream": "stream",
}
MEANT = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}

TYPES = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "video": "video",
    "video_url": "video",
    "input_video": "video",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
}
KINDS = ("image", "video", "audio")
OWN_SOURCES = {kind: (kind, f"{kind}_url", f"{kind}_path", f"input_{kind}") for kind in KINDS}
ANY_SOURCES = ("path", "url", "bytes", "base64", "frames")
WAVES = ("array", "data")  # of sound: in rows of datasets, and OpenAI's base64

VIDEO_OPTIONS = {
    "fps": "fps",
    "max_frames": "max_frames",
    "num_frames": "num_frames",
    "nframes": "num_frames",
    "start": "start",
    "start_time": "start",
    "video_start": "start",
    "end": "end",
    "end_time": "end",
    "video_end": "end",
    "mode": "mode",
    "sample_fps": "sample_fps",
    "timestamps": "timestamps",
    "times": "timestamps",
    "sound": "sound",
    "use_audio_in_video": "sound",
}
FRAME_TIMES = {"sample_fps", "timestamps", "times"}
IMAGE_OPTIONS = {"timestamp": "timestamp", "time": "timestamp", "timestamps": "timestamp"}
AUDIO_OPTIONS = {"start": "start", "start_time": "start", "end": "end", "end_time": "end"}
OPTIONS = {"image": IMAGE_OPTIONS, "video": VIDEO_OPTIONS, "audio": AUDIO_OPTIONS}

# Keys of peers for what is decided elsewhere here, and where.
SIZE = "the size follows from the token budget (budget_tokens)"
ELSEWHERE = dict.fromkeys(
    ("min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width", "detail"), SIZE
) | {
    "min_frames": "fps, max_frames or num_frames say how many frames are taken",
    "raw_fps": "fps says how many frames a second are taken, sample_fps how many there are",
    "file_id": "files of a service are not read; give a path or a data: URL",
}
AS_HERE = {"detail": ("auto", "high", "original")}  # asks for what is done anyway
LABELS = {"id", "uuid", "index", "name", "metadata", "options", "annotations", "cache_control"}
