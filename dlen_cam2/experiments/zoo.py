"""The models that tables compare: baselines and every trunk and head, of one configuration's sizes and rates."""

from collections.abc import Sequence
from typing import Any

from dlen_cam2 import parts
from dlen_cam2.config import Config, replaced
from dlen_cam2.experiments import networks as trained
from dlen_cam2.experiments.baselines import boosted_trees, constant
from dlen_cam2.experiments.rows import Log, Row
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError

BASELINE = "MMOE"
SINGLE = "single task"
CONSTANT, TREES = "constant rate", "LightGBM"
_ORDER = ("shared_bottom", "mmoe", "cgc", "ple")
NOTE = (
    f"`{CONSTANT}` is each task's positive rate on the training days. `{TREES}` is {boosted_trees.ROUNDS} trees a task "
    "on the same features, with categories as ordered numbers, and lists as their first value and length (DESIGN). "
    f"`{SINGLE}` is one network a task: the shared bottom with that task alone (an expert's layers, then a tower). All "
    "other networks are built from it (DESIGN: PLE's single-task model is that plain network; MMOE's experts with one "
    "task would be a larger one)."
)
ESMM_NOTE = (
    "`ESMM` is built over the shared bottom (DESIGN: the paper shares embeddings only). It is trained on all "
    "impressions through P(click) P(conversion | click), and measured like the others."
)


def networks() -> dict[str, tuple[str, str]]:
    """{name in tables: (trunk, head)}: every trunk with the logistic head, and every other head on its trunks.

    Those of this package come first, in the order of their papers.
    """
    known = parts.classes("trunk")
    trunks = {name: known[name].title or name for name in dict.fromkeys((*_ORDER, *known))}
    found = {title: (name, "logistic") for name, title in trunks.items()}
    heads: dict[str, Any] = parts.classes("head")
    for name, head in heads.items():
        for trunk in head.compared_on if name != "logistic" else ():
            found[head.name_on(trunks[trunk])] = (trunk, name)
    return found


def without(head: str) -> list[str]:
    """The names of the networks that do not have `head`."""
    return [name for name, (_, of) in networks().items() if of != head]


def network(config: Config, name: str) -> Row:
    """The network `name` with the sizes and rates of `config`."""
    trunk, head = networks()[name]
    return Row(name, {"": replaced(config, {"name": name, "model.trunk": trunk, "model.head": head})}, trained.train)


def single(config: Config, tasks: Sequence[str]) -> Row:
    """One network for each task."""
    return Row.of_each_task(SINGLE, network(config, "shared bottom").configs[""], tasks, trained.train)


def rows(config: Config, log: Log, names: Sequence[str]) -> list[Row]:
    """The three baselines, and the networks `names`; ESMM is left out where no task follows another.

    Raises:
        UserError: LightGBM is not installed, or a task is a number.
    """
    boosted_trees.library()
    schema = pbtxt.load(log.data_dir).select(config.model.tasks)
    if numbers := [task.name for task in schema.tasks if task.is_number]:
        raise UserError(
            "config.model.tasks must name tasks that are probabilities, which the tables compare. Received: "
            f"{numbers} as well, which are numbers."
        )
    fitting = [name for name in names if name != "ESMM" or any(p is not None for p in schema.parents)]
    return [
        Row(CONSTANT, {"": config}, constant.train), Row(TREES, {"": config}, boosted_trees.train),
        single(config, schema.task_names), *(network(config, name) for name in fitting),
    ]
