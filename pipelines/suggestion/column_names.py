"""Rules for the names of a log's columns: feedback, an id, a clock, time that was spent."""

import dataclasses
import re

# Feedback in any form of the word: like, likes, liked. Phrases may be written as one word.
_POSITIVE = """
    click, click through, tap, close up, view, long view, play, watch, listen, read, visit, finish, complete,
    completion, like, love, heart, favorite, favourite, fav, thumbs up, upvote, vote, react, reaction, follow,
    follow user, subscribe, join, comment, reply, share, reshare, forward, repost, retweet, reblog, repin, collect,
    save, bookmark, wishlist, add, add to cart, cart, checkout, begin checkout, purchase, buy, order, payment,
    transaction, convert, conversion, install, download, register, registration, sign up, apply, application, enroll,
    contact, reserve, reservation, booking, interview, hire, submit, donate, donation, attend, engagement, interact,
    interaction, profile enter, enter profile, select item, swipe right
"""
_NEGATIVE = """
    dislike, hate, skip, report, report user, hide, block, block user, mute, unfollow, unlike, unsubscribe, uninstall,
    return, refund, chargeback, cancel, cancellation, complain, complaint, not interested, no interest, uninterested,
    thumbs down, downvote, bounce, dismiss, churn, negative feedback, show less, see less, reduce similar, swipe left
"""
# Feedback in the past only: opened, but not open; booked, but not book.
_PAST_POSITIVE = "open, book, star, pin, call, message, rent, start, tip, rate, review, accept, answer, expand, engage"
_PAST_NEGATIVE = "close, remove, delete, ignore, abandon, reject, decline"
# Whatever follows: add_to_playlist.
_OPEN_POSITIVE, _OPEN_NEGATIVE = "add to", "remove from"
# Feedback that in the past may also be a state of the user or the item: subscribed.
_STATES = {"block", "churn", "complete", "enroll", "finish", "follow", "hide", "install", "join", "mute", "register",
           "subscribe"}
_IRREGULAR = {"bought": "buy", "hidden": "hide", "hid": "hide"}
_PREFIXES = {"is", "has", "did", "was"}


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Labels that do not say of what, and what marks a label.
_LABELS = _set("label y target response outcome feedback reward positive")
_MARKS = _set("action binary bool event flag gt ind indicator label signal target y yn")
# What a verb may be followed by: its object, or within how long.
_AFTER = _MARKS | _set("""
    ad ads album article artist author banner brand card channel content creator film image it item items job listing
    movie news photo post product seller shop song store story this track video
    d day days h hour hours in m min week within
""")
# What makes of feedback something else: a statistic, a right, the past, others, a kind of person.
_OTHERWISE = _set("""
    count counts cnt num number ratio rate ctr cvr average avg mean max min sum total pct percent score
    prob probability pred predicted expected known
    allow allowed allows available can disabled eligible enabled may auto coupon discount filter for free no non not
    ago already before ever first historical history last past pre prev previous previously prior recent recently
    repeat yesterday by friend friends
""")
_PEOPLE = _set("account buyer client customer guest member people shopper subscriber user users visitor")

_IDS = _set("id ids uid uuid guid hash token key")
_NO_IDS = _set("android bid grid hybrid invalid kid liquid mid paid prepaid solid unpaid valid")
# What has an id for few rows: an answer of the feed, a visit. Ids of the second kind may also be kinds of events.
_REQUESTS = _set("auction correlation exposure impression imp req request row sess session slate span trace")
_EVENTS = _set("""
    batch event feed log message order page pageview query rec recommendation record response search transaction view
    visit
""")
_RANDOM = _set("rand random randomised randomized rnd explore explored exploration")
_PLACES = _set("place position pos rank ranking slot")
_STATISTICS = _set("cnt count counts num rate ctr cvr ratio impressions exposures clicks likes views pv uv")

_SPENT = _set("play watch dwell stay view read listen spend spent consume")
_UNITS = _set("time duration s sec secs second seconds ms msec millis minutes mins")
_SHARES = _set("ratio pct percent percentage fraction progress")
_NO_SPENT = _set("avg average mean total sum max min median count cnt estimated expected since last past previous prev")
_AMOUNTS = _set("""
    age amount delay duration elapsed gap interval latency len length lifetime price since size spent tenure timeout ttl
""") | _SPENT | _STATISTICS
_DATES = _set("date datetime dt epoch timestamp ts unixtime dayofyear doy")
_CLOCKS = _set("clock hhmm hhmmss hourmin hourminute hourofweek localtime minuteofday secondofday time timeofday")
_MONTHS = _set("ym yyyymm yearmonth month period")


@dataclasses.dataclass(frozen=True)
class Feedback:
    """The feedback that a column's name stands for.

    Attributes:
        negative: whether it shows dislike.
        sure: whether the name can only be that of feedback. Otherwise, it may be a state (`is_subscribed`) or an
            attribute (`video_download`) of the user or the item, which the values tell.
    """

    negative: bool
    sure: bool


def words(name: str) -> list[str]:
    """The words of a name in lower case: the same three for `addToCart`, `add_to_cart` and `Add-to cart`."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    name = re.sub(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])", " ", name)
    return [word.lower() for word in re.split(r"[\W_]+", name) if word]


def feedback(name: str) -> Feedback | None:
    """The feedback that a binary column of this name holds; None if the name does not stand for feedback.

    - The last word names feedback (`item_click`), apart from its object (`click_item`), a word that marks a label
      (`click_flag`) and a time (`purchase_7d`);
    - or any word names it in the past (`clicked_banner`), or the words "add to" or "remove from" are there;
    - and no other word says that it is something else: a statistic (`like_count_known`), a right (`can_comment`), the
      past (`bought_before`), a kind of person (`return_customer`).
    """
    given = words(name)
    bare = _bare(given)
    if set(bare) & _LABELS and all(w in _LABELS | _MARKS or w.isdigit() for w in bare):
        return Feedback(negative=False, sure=True)
    for length in (3, 2, 1):
        for start in range(len(bare) - length + 1):
            window, after = bare[start : start + length], bare[start + length :]
            kind = _KNOWN.get("".join(map(_stem, window)))
            if kind is None or set(bare[:start] + after) & _OTHERWISE or set(after) & _PEOPLE:
                continue
            past = any(w in _IRREGULAR or w.endswith("ed") and _stem(w) != w for w in window)
            last = all(w in _AFTER or w.isdigit() for w in after)
            if kind.open or past or last and not kind.past:
                whole = (kind.open or len(window) == len(bare)) and given[0] != "has"
                return Feedback(kind.negative, sure=whole and not kind.past and not (past and kind.name in _STATES))
    return None


def task_name(name: str) -> str:
    """The task of a label: its words without a leading is, has, did or was; a single word is put in its base form.

    `is_liked` and `likes` become "like", `addToCart` "add_to_cart", `didSignUp` "sign_up".
    """
    bare = _bare(words(name))
    if len(bare) == 1 and (known := _KNOWN.get(_stem(bare[0]))):
        return known.name
    return "_".join(bare) or name


def is_id(name: str) -> bool:
    """Whether the last word is or ends in "id": `author_id`, `authorid`, `uuid`."""
    return any(w in _IDS or w.endswith("id") and w not in _NO_IDS for w in words(name)[-1:])


def is_request_id(name: str) -> bool:
    """Whether the name is that of an id of a request, a session or an exposure."""
    return words(name) in (["session"], ["request"]) or _is_id_of(name, _REQUESTS)


def is_event_id(name: str) -> bool:
    """Whether the name is that of an id of an event, a search, an order or the like, or of their kinds."""
    return _is_id_of(name, _EVENTS)


def is_random(name: str) -> bool:
    """Whether a binary column of this name may mark random exposures."""
    return bool(set(words(name)) & _RANDOM)


def is_statistic(name: str) -> bool:
    """Whether the name is that of a count or a rate."""
    return bool(set(words(name)) & _STATISTICS)


def is_place(name: str) -> bool:
    """Whether the name is that of a row's position on the page, which is unknown before rows are ranked."""
    return bool(set(words(name)) & _PLACES) and not set(words(name)) & _STATISTICS


def is_spent(name: str) -> bool:
    """Whether the name is that of time spent, `dwellTime`, `ms_played`, or of a share watched, `watch_ratio`."""
    given = re.sub(r"([a-z])(time|duration)\b", r"\1 \2", " ".join(words(name))).split()
    verbs = {re.sub("(ing|ed)$", "", w) for w in given} & _SPENT
    if given[:2] == ["time", "on"] or given == ["dwell"]:
        return True
    if not verbs or set(given) & _NO_SPENT:
        return False
    return bool({given[0], given[-1]} & _UNITS) or set(given) <= verbs | _SHARES and len(given) > 1


def clock(name: str) -> str:
    """Whether numbers of this name are dates ("date") or times of day ("clock"), whatever their values; or ""."""
    given = words(name)
    for kind, names in (("date", _DATES), ("clock", _CLOCKS)):
        if "".join(given) in names or not is_duration(name) and given[-1:] != ["time"] and set(given[-1:]) & names:
            return kind
    return ""


def is_duration(name: str) -> bool:
    """Whether large numbers of this name may be lengths or amounts rather than times since 1970."""
    return bool(set(words(name)) & _AMOUNTS)


def is_month(name: str) -> bool:
    """Whether 202204 under this name is April 2022."""
    given = words(name)
    return bool(set(given) & _MONTHS) or "".join(given) in _MONTHS or clock(name) == "date"


@dataclasses.dataclass(frozen=True)
class _Kind:
    """Feedback: its name, whether it shows dislike, is feedback in the past tense only, and whatever words follow."""

    name: str
    negative: bool
    past: bool = False
    open: bool = False


def _bare(given: list[str]) -> list[str]:
    return given[1:] if len(given) > 1 and given[0] in _PREFIXES else given


def _is_id_of(name: str, kinds: frozenset[str]) -> bool:
    given = words(name)
    if len(given) == 1:
        return any(given[0] == kind + of for kind in kinds for of in _IDS)
    return bool(given) and given[-1] in _IDS and bool(set(given[:-1]) & kinds)


def _stem(word: str) -> str:
    """The part that the forms of a regular English word share."""
    word = re.sub("ie[sd]$", "y", _IRREGULAR.get(word, word))
    word = re.sub("(?<=[a-z]{3})(es|ed|s|e)$", "", word)
    return re.sub(r"([^aeiou])\1$", r"\1", word) if len(word) > 3 else word


def _known() -> dict[str, _Kind]:
    found = {}
    for text, negative, past, is_open in (
            (_POSITIVE, False, False, False), (_NEGATIVE, True, False, False), (_PAST_POSITIVE, False, True, False),
            (_PAST_NEGATIVE, True, True, False), (_OPEN_POSITIVE, False, False, True),
            (_OPEN_NEGATIVE, True, False, True)):
        for phrase in text.split(","):
            parts = phrase.split()
            kind = _Kind("_".join(parts), negative, past, is_open)
            found["".join(map(_stem, parts))] = found[_stem("".join(parts))] = kind  # also written as one word
    return found


_KNOWN = _known()
