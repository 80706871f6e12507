"""The features of a feed of videos, declared: those of KuaiRand and of the simulator."""

from typing import Any

from dlen_cam2.schema import Computed, Feature, Known

HISTORY_LENGTH = 20
# Key, side, strength of its rates for click and long_view, and for like and profile_enter.
_OWNERS = (("user", ("user_id",), "user", 10, 30), ("video", ("video_id",), "item", 20, 50),
           ("author", ("author_id",), "item", 20, 50))
_FEEDBACK = ("click", "long_view", "like", "profile_enter")
_RARE = ("like", "profile_enter")


def _count(name: str, side: str, by: tuple[str, ...], **how: Any) -> Feature:
    return Feature(name, "float", side, "statistical", transform="log1p",
                   computed=Computed(**{"kind": "count", "by": by} | how))


def _rate(name: str, side: str, by: tuple[str, ...], **how: Any) -> Feature:
    return Feature(name, "float", side, "statistical", transform="logit", computed=Computed("rate", by, **how))


def _owned(owner: str, by: tuple[str, ...], side: str, often: int, rarely: int) -> list[Feature]:
    """The counts and rates of a user, a video or an author."""
    found = [_count(f"{owner}_impressions", side, by)]
    found += [_count(f"{owner}_{of}s", side, by, of=of) for of in _FEEDBACK]
    for of in _FEEDBACK:
        rare = of in _RARE
        found.append(_rate(f"{owner}_{of}_rate", side, by, of=of, strength=rarely if rare else often,
                           start=0.05 if rare else 0.5))
    return found


def _played(owner: str, by: tuple[str, ...], side: str, seconds: int) -> Feature:
    """The time played of the time offered."""
    return _rate(f"{owner}_play_ratio", side, by, value="play_s", among="duration_s", strength=seconds, prior="0.3")


def _within(what: str, by: tuple[str, ...], often: int, rarely: int) -> list[Feature]:
    """A user's rates with what the row has, smoothed towards those with everything."""
    return [_rate(f"user_{what}_{of}_rate", "context", by, of=of, strength=rarely if of in _RARE else often,
                  prior=f"user_{of}_rate") for of in _FEEDBACK[:3]]


def _counters() -> tuple[Feature, ...]:
    user, video, author = (_owned(*owner) for owner in _OWNERS)
    of_user = ("user_id",)
    tab, topic = ("user_id", "tab"), ("user_id", "topic")
    with_author = ("user_id", "author_id")
    return (
        *user[:5], _count("user_idle_s", "user", of_user, kind="age"),
        _count("user_hour_impressions", "user", of_user, over="1h"),
        _count("user_hour_long_views", "user", of_user, of="long_view", over="1h"),
        *user[5:], _played("user", of_user, "user", 100),
        *video, _played("video", ("video_id",), "item", 500),
        *author,
        _count("user_tab_logged", "context", tab), _count("user_topic_impressions", "context", topic),
        _count("user_author_impressions", "context", with_author),
        _count("user_author_long_views", "context", with_author, of="long_view"),
        _count("user_video_impressions", "context", ("user_id", "video_id")),
        *_within("tab", tab, 5, 20), *_within("topic", topic, 3, 10),
    )


def _session() -> tuple[Feature, ...]:
    """What the user has just seen and done; click and long_view, since of each exposure something is known of them."""
    of_user = ("user_id",)

    def plain(name: str, side: str, **how: Any) -> Feature:
        return Feature(name, "float", side, "statistical", computed=Computed(**{"by": of_user} | how))

    found = []
    for of in ("click", "long_view"):
        found += [plain(f"user_last_{of}", "user", kind="last", value=of, missing=0.5)]
        found += [plain(f"user_{of}s_of_{n}", "user", kind="mean", value=of, over=f"last {n}", missing=0.5)
                  for n in (3, 10)]
    found += [_count(f"user_{of}_idle_s", "user", of_user, kind="age", of=of) for of in ("click", "long_view", "like")]
    for name, over in (("minutes", "10m"), ("hour", "1h"), ("day", "1d")):
        for what, of in (("impressions", "exposures"), ("clicks", "click"), ("long_views", "long_view")):
            if (name, what) not in (("hour", "impressions"), ("hour", "long_views")):  # they are among the counters
                found.append(_count(f"user_{name}_{what}", "user", of_user, of=of, over=over))
    found.append(_count("user_session_impressions", "user", of_user, over="session 30m"))
    for what, value in (("author", "author_id"), ("topic", "topic")):
        found += [plain(f"user_same_{what}_of_{n}", "context", kind="same", value=value, over=f"last {n}")
                  for n in (1, 3)]
    found.append(plain("user_same_video_of_10", "context", kind="same", value="video_id", over="last 10"))
    return tuple(found)


COUNTERS = _counters()
SESSION = _session()
# Feedback is known when the video has been played.
KNOWN = dict.fromkeys((*_FEEDBACK, "play_s"), Known(after="play_s"))


def histories(videos: int) -> tuple[Feature, ...]:
    """The user's earlier videos, newest first, sharing the table of `video_id`."""
    return tuple(
        Feature(name, "int", "user", "content", size=videos, width=16, table="video_id", max_length=HISTORY_LENGTH,
                computed=Computed("sequence", ("user_id",), of=of, value="video_id"))
        for name, of in (("watched", "exposures"), ("long_viewed", "long_view"), ("liked", "like"))
    )
