"""The files that TensorFlow Serving and docker need to serve a directory of versions, beside the versions."""

import dataclasses
import os
import pathlib
import re
import shlex
from collections.abc import Iterable, Mapping

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from dlen_cam2.serving import versions
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_bytes, write_text

MODELS = "models.config"
BATCHING = "batching.config"
COMPOSE = "compose.yaml"
LABELS = ("stable", "canary")

# As `dlen_cam2` itself; TensorFlow leaves these operations off on processors without AVX-512.
ONEDNN = "TF_ENABLE_ONEDNN_OPTS=1"
IMAGE = "tensorflow/serving:2.21.0"
# How often the server looks at models.config.
POLL_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Published:
    """The content of models.config.

    Attributes:
        name: the name of the model.
        labels: the version of each label.
        loaded: the versions that the server loads, ascending.
    """

    name: str
    labels: Mapping[str, int]
    loaded: tuple[int, ...]


def published(directory: str | os.PathLike) -> Published | None:
    """What is published in `directory`; None if nothing is published.

    Raises:
        UserError: models.config is not one of ours.
    """
    path = pathlib.Path(directory) / MODELS
    if not path.exists():
        return None
    try:
        models = text_format.Parse(read_bytes(path).decode(), ModelServerConfig()).model_config_list.config
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UserError(f"{path} must be a ModelServerConfig in text. Received: {error}.") from error
    if len(models) != 1 or not models[0].model_version_policy.specific.versions:
        raise UserError(f"{path} must name one model and its versions. Received: {[m.name for m in models]}.")
    specific = models[0].model_version_policy.specific.versions
    return Published(models[0].name, dict(models[0].version_labels), tuple(sorted(specific)))


def publish(
    directory: str | os.PathLike, changes: Mapping[str, int | None], load: Iterable[int] = (), keep: int = 5,
    name: str = "",
) -> tuple[Published, list[int]]:
    """Write models.config, batching.config and compose.yaml, then remove versions that are too old.

    The server loads the versions that have a label and those of `load`. It reads labels before it loads anything
    (`ServerCore::ReloadConfig`), and keeps refusing the whole file if a label that it knows names a version that it has
    not loaded. A label can therefore move only among the versions that the last models.config loads.

    Args:
        directory: the directory of the versions.
        changes: the new version of each label to change; None removes the label. Other labels stay. If no version is
            stable yet, the newest becomes stable.
        load: versions to load without a label.
        keep: the number of newest versions to keep; all versions that the old or the new models.config loads are kept
            too, since a server reads the new one only when it next looks.
        name: the name of the model. Default: the present name, at first the name of the directory.

    Returns:
        What is published now, and the versions that were removed.

    Raises:
        UserError: a version does not exist or cannot be loaded, a label cannot move yet, or the name is not valid.
    """
    directory = pathlib.Path(directory)
    found = versions.numbers(directory)
    if not found:
        raise UserError(f"{directory} must hold versions that dlen_cam2 export wrote. Received: none.")
    before = published(directory)
    labels = dict(before.labels) if before else {}
    labels.setdefault("stable", found[-1])
    labels = {label: number for label, number in {**labels, **changes}.items() if number is not None}
    now = Published(
        name or (before.name if before else directory.resolve().name), labels, tuple(sorted({*labels.values(), *load}))
    )
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]*", now.name):
        raise UserError("the name of a model must consist of letters, digits, '_', '.' and '-', and begin with a letter"
                        f" or a digit. Received: {now.name!r}.")
    for number in now.loaded:
        if number not in found:
            raise UserError(f"{directory} has no version {number}. Known: {found}.")
        versions.check(directory / str(number))
    if before:
        _check_moves(before, now)
    write_text(directory / BATCHING, BATCHING_TEXT)
    write_text(directory / COMPOSE, compose(now.name))
    write_text(directory / MODELS, models(now))
    return now, versions.prune(directory, keep, {*now.loaded, *(before.loaded if before else ())})


def _check_moves(before: Published, now: Published) -> None:
    for label, number in now.labels.items():
        if label in before.labels and number not in before.loaded:
            raise UserError(
                f"the label {label} may move only to a version that the server has loaded: publish --load={number}, "
                f"wait until GET /v1/models/{now.name} reports AVAILABLE, then move the label. "
                f"Received: {label}={number}, loaded versions {list(before.loaded)}."
            )


def models(content: Published) -> str:
    """The text of models.config."""
    config = ModelServerConfig()
    model = config.model_config_list.config.add(
        name=content.name, base_path=f"/models/{content.name}", model_platform="tensorflow"
    )
    model.model_version_policy.specific.versions.extend(content.loaded)
    model.version_labels.update(content.labels)
    return (
        "# Written by dlen_cam2 publish. Clients should ask for the label stable: a request without a label or a\n"
        f"# version gets the highest version here, which may be the canary.\n{text_format.MessageToString(config)}"
    )


BATCHING_TEXT = """\
# Batching across requests, for many clients that send a few rows each to serving_default or raw. Written by
# dlen_cam2 publish; compose.yaml gives it to the service `batching` only, because TensorFlow Serving batches all
# signatures or none, and cannot batch `rank`: all inputs of a batched request must have the same number of rows (else
# INVALID_ARGUMENT "Batching Run() input tensors must have equal 0th-dimension size", batching_session.cc), and rank has
# one row of the user beside N candidates. Send rank requests, which are batches already, to the service `serving`. The
# warm-up file holds rank requests, and a version whose warm-up fails is not served, so this service does not read it.

# Maximum number of rows in a batch; a larger request is refused.
max_batch_size { value: 512 }
# Microseconds that the first row of a batch waits for more rows. Values from 0 to 10000 are worth trying.
batch_timeout_micros { value: 1000 }
# Maximum number of batches that wait for a thread; further requests are refused (UNAVAILABLE) and do not pile up.
max_enqueued_batches { value: 64 }
# num_batch_threads is not set; its default is one thread per core.
# A batch is padded to the next of these sizes, so that few shapes occur. The last is max_batch_size.
allowed_batch_sizes: 8
allowed_batch_sizes: 32
allowed_batch_sizes: 128
allowed_batch_sizes: 512
# The server must not pad lists of different lengths: it would repeat the tensor's first value (batching_util.cc), which
# is an id and not the padding. Clients of raw send lists of the schema's max_length.
pad_variable_length_inputs: false
"""


def _flags(name: str) -> list[str]:
    return [
        f"--model_config_file=/models/{name}/{MODELS}", f"--model_config_file_poll_wait_seconds={POLL_SECONDS}",
        # Else a server that starts refuses the labels, since nothing is loaded yet.
        "--allow_version_labels_for_unavailable_models=true",
    ]


def compose(name: str) -> str:
    """The text of compose.yaml; the directory that contains it becomes /models/<name>."""
    flags = _flags(name)
    batching = ["--enable_batching=true", f"--batching_parameters_file=/models/{name}/{BATCHING}",
                "--enable_model_warmup=false"]
    return f"""\
# Written by dlen_cam2 publish. `docker compose up` serves gRPC on 8500 and REST on 8501;
# `docker compose --profile batching up` also serves 8510 and 8511 with batching across requests; see {BATCHING}.
# TensorFlow Serving has no authentication, so the ports are open to this machine only.
services:
  serving:
    image: {IMAGE}
    restart: unless-stopped
    environment: [{ONEDNN}]
    ports: ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    volumes: [".:/models/{name}:ro"]
    command:
{_items(flags)}
  batching:
    image: {IMAGE}
    profiles: [batching]
    restart: unless-stopped
    environment: [{ONEDNN}]
    ports: ["127.0.0.1:8510:8500", "127.0.0.1:8511:8501"]
    volumes: [".:/models/{name}:ro"]
    command:
{_items([*flags, *batching])}
"""


def _items(flags: list[str]) -> str:
    return "\n".join(f"      - {flag}" for flag in flags)


def docker_run(directory: str | os.PathLike, name: str) -> str:
    """The command line that is equivalent to `docker compose up`.

    The directory rather than the file is mounted: a file that is replaced by renaming would stay the old one.
    """
    mount = f"{pathlib.Path(directory).resolve()}:/models/{name}:ro"
    ports = ["-p", "127.0.0.1:8500:8500", "-p", "127.0.0.1:8501:8501"]
    return shlex.join(["docker", "run", "--rm", *ports, "-v", mount, "-e", ONEDNN, IMAGE, *_flags(name)])
