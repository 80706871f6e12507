"""The report of a search: `tune.md`, `tune.html`, `search.png`, and `best.py`, the best configuration."""

import os
import pathlib

from dlen_cam2.config import larger_is_better
from dlen_cam2.config_file import source
from dlen_cam2.tuning.plot import draw, short, text
from dlen_cam2.tuning.result import CONFIGURED, Found, Trial
from dlen_cam2.utils import page
from dlen_cam2.utils.files import write_text
from dlen_cam2.utils.markdown import markdown

PAGE = "tune.md"
PICTURE = "search.png"
CONFIG = "best.py"


def write(found: Found, output: str | os.PathLike, command: str) -> None:
    """Write the page, its picture and the best configuration, a file that `dlen_cam2 train --config=` takes.

    Args:
        found: the result of `search`.
        output: the directory of the search.
        command: the command line, which is quoted in the files beside its outcome.
    """
    output = pathlib.Path(output)
    write_text(output / CONFIG, source(found.config, _docstring(found, output, command)))
    draw(output / PICTURE, found)
    page.write(output / PAGE, text_of(found, command))


def _docstring(found: Found, output: pathlib.Path, command: str) -> str:
    asked, (days, validation) = found.asked, _days(found)
    origin = "the configuration as given" if found.best.name == CONFIGURED else f"trial {found.best.name}"
    return (
        f"{found.config.name}, tuned: {asked['objective']} {found.value:.5f} on {validation}, trained on {days}.\n\n"
        f"It is {origin}, the best of {len(found.trials)} ({asked['tuner']} search, seed {asked['seed']}):\n\n"
        f"{command}\n\n"
        f"dlen_cam2 train --config={output / CONFIG} --data_dir=DIR --model_dir=DIR --train_days=A..B "
        "--eval_days=C"
    )


def _days(found: Found) -> tuple[str, str]:
    """The days trained on and validated on, as text."""
    ranges = []
    for days in (found.asked["train_days"], found.asked["validation_days"]):
        ranges.append(f"{days[0]}..{days[-1]}" if len(days) > 1 else days[0])
    return ranges[0], ranges[1]


def text_of(found: Found, command: str) -> str:
    """The text of `tune.md`."""
    asked, (days, validation) = found.asked, _days(found)
    objective = asked["objective"]
    larger = larger_is_better(objective)
    measured = sorted(
        (trial for trial in found.trials if not trial.reason),
        key=lambda trial: -trial.metrics[objective] if larger else trial.metrics[objective],
    )
    failed = [trial for trial in found.trials if trial.reason]
    keys = found.varied
    head = ["trial", objective, *(m for m in ("ne", "auc", "gauc") if m != objective), "passes", "seconds"]
    rows = [
        [trial.name, *(_metric(trial, name) for name in head[1:-2]), str(trial.epochs), f"{trial.seconds:.0f}",
         *(text(trial.values.get(key, "")) for key in keys)]
        for trial in measured
    ]
    parts = [
        f"# {found.config.name}: {asked['tuner']} search for {'high' if larger else 'low'} {objective}",
        f"```sh\n{command}\n```",
        f"Trained on {days}, measured on {validation}. Trial {found.best.name} is the best, with {objective} "
        f"{found.value:.5f}; `{CONFIG}` is its configuration. It was chosen on {validation}, so its value there is "
        "optimistic: measure it on days that no trial has seen.",
        f"Budget: {len(found.trials) - 1} of {asked['trials']} trials and the configuration as given ({CONFIGURED}), "
        f"{sum(trial.epochs for trial in found.trials)} passes over the training days, "
        f"{sum(trial.seconds for trial in found.trials):,.0f} s of training and measuring, summed over processes. "
        f"{len(failed)} trials failed.",
        markdown([*head, *map(short, keys)], rows),
    ]
    if failed:
        parts += ["Failed:", markdown(
            ["trial", "reason", *map(short, keys)],
            [[trial.name, _one_line(trial.reason), *(text(trial.values.get(key, "")) for key in keys)]
             for trial in failed],
        )]
    given = found.trials[0]
    if given.name == CONFIGURED and not given.reason and given is not found.best:
        tasks = [name for name in found.best.metrics if "/" in name and name.rpartition("/")[2] != "gauc"]
        parts += ["Task by task:", markdown(
            ["metric", "as given", f"trial {found.best.name}"],
            [[name, _metric(given, name), _metric(found.best, name)] for name in tasks],
        )]
    parts.append(f"![the best value by trial, and the objective by each hyperparameter]({PICTURE})")
    return "\n\n".join(parts) + "\n"


def _metric(trial: Trial, name: str) -> str:
    return f"{trial.metrics[name]:.5f}" if name in trial.metrics else "undefined"


def _one_line(reason: str) -> str:
    line = " ".join(reason.replace("|", "\\|").split())
    return line if len(line) <= 300 else line[:300] + " …"
