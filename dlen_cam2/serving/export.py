"""Export of a trained model as a SavedModel that TensorFlow Serving loads."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.serving import request_log, versions
from dlen_cam2.serving.signatures import Server
from dlen_cam2.training.model_directory import TrainedModel
from dlen_cam2.utils import console
from dlen_cam2.utils.custom_gradient import no_gradients
from dlen_cam2.utils.files import staged

_METHODS = {"classify": "tensorflow/serving/classify", "regress": "tensorflow/serving/regress"}


def export(
    model: TrainedModel, output: str | os.PathLike, causes: bool = False,
    rows: Mapping[str, np.ndarray] | None = None, **options: Any,
) -> pathlib.Path:
    """Write `output/<version>/`, one above the newest version there, and return the directory.

    It is written beside its final place and renamed at the end.

    Args:
        model: the trained model.
        output: the directory of the model's versions.
        causes: also serve CAM2's scores of causes.
        rows: raw columns for the requests of the warm-up file, see `request_log.first_rows`; None: made from the
            schema.
        **options: further options of `Server`.

    Raises:
        UserError: `output` cannot be written, or `Server` refuses the model.
    """
    target = versions.following(output)
    console.say(f"exporting {model.network.name} as version {target.name}: building the signatures")
    server = Server(model, causes, **options)
    with no_gradients():
        signatures = server.concrete_signatures()
    console.say(f"writing the SavedModel with the signatures {', '.join(signatures)}")
    with staged(target, versions.SAVED_MODEL) as stage:
        tf.saved_model.save(server, str(stage), signatures=signatures)
        if methods := {name: method for name, method in _METHODS.items() if name in signatures}:
            # tf.saved_model.save knows no method but Predict.
            updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(stage))
            for name, method in methods.items():
                updater.replace_method_name(name, method)
            updater.save()
        origin = "rows of the data set" if rows else "rows generated from the schema"
        console.say(f"writing the requests that warm up a server, from {origin}")
        name = target.parent.resolve().name
        request_log.write(stage / request_log.WARM_UP, request_log.warm_up(model.schema, signatures, name, rows))
    return target
