"""The parameters of a simulated feed, and the equations that it follows."""

import dataclasses

import numpy as np

from dlen_cam2.utils.errors import UserError

TASKS = ("click", "long_view", "like", "comment", "follow", "forward")
DAY_MS = 86_400_000
Columns = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class World:
    """The parameters of a simulated feed.

    A user u meets an item i. With tastes r_u in (0,1)^k, topics q_i in the simplex, conformity c_u in (0,1)
    and log-popularity z_i:

        relevance   R = Σ_x r_ux q_ix
        P(UP)       = σ(preference_bias + relevance_weight (R - 1/2) + conformity_weight c_u z_i + tab)
        P(k|UP)     = σ(logit(rate_k) + habit_k h_uk)                 for each behaviour k but long_view
        P(k|¬UP)    = cap · P(k) · σ(h_uk), P(k) the mean of P(k|UP) P(UP) over the log
        long_view   = watched at least min(duration, 18 s); log watch time is normal, its mean grows with the
                      log duration if the user prefers the item, and is a glance if not

    so DLEN's story holds, with P(k|¬UP) < cap · P(k) for all behaviours but long_view by construction. With `broken` =
    b, the story holds in part: a user who does not prefer the item acts, with probability b, as if they did,

        P(k|¬UP) = (1 - b) cap · P(k) · σ(h_uk) + b P(k|UP)           (long_view likewise)

    so that at b = 1 the cap is violated, and preference and behaviours are independent. Who meets what stays the same.
    The logging policy shows popular items more and prefers relevant ones; the random log shows items uniformly.

    Attributes:
        rows, seed: the values of the flags.
        days: length of the log; the first is `first_day`.
        rows_per_user, rows_per_item: mean exposures, which set how many users and items there are.
        interests: the number of interests, k.
        random_share: share of the rows that are uniformly random exposures.
        candidates: items among which the logging policy picks one.
        popularity_exponent: how strongly the policy's candidates favour popular items.
        policy_relevance: how strongly it picks relevant ones among them.
        new_share: share of the items that are uploaded while the log runs.
        rates: P(k|UP) of a user with average habits.
        habits: how much users differ in showing a preference by behaviour k.
        broken: how far DLEN's story is broken, in [0, 1].
    """

    rows: int
    seed: int
    first_day: str = "20240101"
    days: int = 8
    rows_per_user: int = 150
    rows_per_item: int = 200
    interests: int = 8
    random_share: float = 0.1
    candidates: int = 6
    popularity_exponent: float = 0.8
    policy_relevance: float = 1.0
    new_share: float = 0.2
    preference_bias: float = -0.6
    relevance_weight: float = 6.0
    conformity_weight: float = 1.6
    cap: float = 0.2
    rates: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"click": 0.8, "like": 0.2, "comment": 0.06, "follow": 0.05, "forward": 0.08}
    )
    habits: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"click": 1.5, "like": 1.5, "comment": 1.5, "follow": 1.5, "forward": 1.5}
    )
    broken: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.broken <= 1:
            raise UserError(f"--broken must be in [0, 1]. Received: {self.broken}.")

    @property
    def users(self) -> int:
        return max(20, self.rows // self.rows_per_user)

    @property
    def items(self) -> int:
        return max(20, self.rows // self.rows_per_item)

    @property
    def authors(self) -> int:
        return max(5, self.items // 4)
