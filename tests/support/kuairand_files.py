"""A tiny directory in the official layout of KuaiRand-Pure: same file names, same columns, random content."""

import csv
import datetime
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

EARLY = "log_standard_4_08_to_4_21_pure.csv"
LATE = "log_standard_4_22_to_5_08_pure.csv"
RANDOM = "log_random_4_22_to_5_08_pure.csv"
USERS = "user_features_pure.csv"
VIDEOS = "video_features_basic_pure.csv"
HISTORY = "user_history_before_4_25.csv"
LOGS = (EARLY, LATE, RANDOM)
DAYS = {EARLY: ("20220420", "20220421"), LATE: ("20220425", "20220426"), RANDOM: ("20220425", "20220426")}
BEIJING = datetime.timezone(datetime.timedelta(hours=8))
FEEDBACK = ("is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view", "is_profile_enter")

Files = dict[str, list[dict[str, Any]]]


def midnight(day: str) -> int:
    """Milliseconds since 1970 of the midnight in Beijing that begins `day`."""
    return int(datetime.datetime.strptime(day, "%Y%m%d").replace(tzinfo=BEIJING).timestamp() * 1000)


def generate(rows: int = 40, users: int = 5, videos: int = 8, seed: int = 0) -> Files:
    """The files' content; each log holds `rows` rows and after them 3 exact duplicates.

    As in the real files, `hourmin` may be later than `time_ms`.
    Even users have a history that ends before every log; the history of odd users ends at their last exposure.
    User `users - 1` has no features, video `videos - 1` stands in no file but the logs.
    """
    rng = np.random.default_rng(seed)
    files: Files = {name: [] for name in LOGS}
    for name in LOGS:
        for _ in range(rows):
            day = str(rng.choice(DAYS[name]))
            second = int(rng.integers(86_400))
            row = {"user_id": int(rng.integers(users)), "video_id": int(rng.integers(videos)), "date": day,
                   "hourmin": min(second + 1800, 86_399) // 3600 * 100, "time_ms": midnight(day) + 1000 * second,
                   **{c: int(rng.random() < 0.3) for c in FEEDBACK}, "play_time_ms": int(rng.integers(90_000)),
                   "duration_ms": int(rng.integers(1000, 60_000)), "profile_stay_time": 0, "comment_stay_time": 0,
                   "is_rand": int(name == RANDOM), "tab": int(rng.integers(3))}
            files[name].append(row)
        files[name] += [dict(files[name][i]) for i in (0, 0, 5)]
    files[USERS] = [
        {"user_id": u, "user_active_degree": ("full_active", "UNKNOWN")[u % 2], "is_lowactive_period": 0,
         "is_live_streamer": (-124, 1)[u % 2], "is_video_author": 1, "follow_user_num": 10 * u,
         "follow_user_num_range": "(10,50]", "fans_user_num": u, "fans_user_num_range": "[1,10)", "friend_user_num": 0,
         "friend_user_num_range": "0", "register_days": 100 + u, "register_days_range": "61-90",
         **{f"onehot_feat{i}": u % (i + 1) if i < 12 else float(u % 2) for i in range(18)}}
        for u in range(users - 1)
    ]
    files[VIDEOS] = [
        {"video_id": v, "author_id": 7_000_000 + v % 3, "video_type": "NORMAL", "upload_dt": "2022-04-10",
         "upload_type": ("LongImport", "Kmovie")[v % 2], "visible_status": 0.0, "video_duration": 1000.0 * v,
         "server_width": 720.0, "server_height": 1280.0, "music_id": 99 + v, "music_type": (9.0, "")[v % 2],
         "tag": ("39", "2,8", "2,39,8,11", "")[v % 4]}
        for v in range(videos - 1)
    ]
    files[HISTORY] = []
    for u in range(users):
        last = max(r["time_ms"] for name in LOGS for r in files[name] if r["user_id"] == u)
        watched = rng.integers(videos, size=6).tolist()
        files[HISTORY].append({
            "user_id": u, "history_len": 6, "last_time_ms": last if u % 2 else midnight("20220407"),
            "watch_seq": " ".join(map(str, watched)), "like_seq": str(watched[2]) if u % 4 else "",
            "long_watch_seq": " ".join(map(str, watched[:3])),
        })
    return files


def write(directory: pathlib.Path, files: Files) -> pathlib.Path:
    """Write every file of `files` into `directory`, which is returned."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        with (directory / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return directory


def read(output, split):
    """The rows of a split as TFDS reads them."""
    return list(tfds.builder_from_directory(str(output)).as_dataset(split=split).as_numpy_iterator())
