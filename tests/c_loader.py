"""A program that serves a SavedModel through TensorFlow's C API, as TensorFlow Serving does through C++.

`TF_LoadSessionFromSavedModel` is the C++ loader. No TensorFlow Python code is imported. Reads one JSON object on
standard input: {"library", "model", "inputs": {tensor: {"dtype", "shape", "values"}}, "outputs": {name: tensor}};
writes {name: values}.
"""

import ctypes
import json
import sys

import numpy as np

DTYPES = {"float32": 1, "int64": 9}  # TF_FLOAT, TF_INT64 of tf_datatype.h


class Output(ctypes.Structure):
    """TF_Output: an operation and the index of its output."""

    _fields_ = [("oper", ctypes.c_void_p), ("index", ctypes.c_int)]


def main() -> None:
    job = json.load(sys.stdin)
    tf = ctypes.CDLL(job["library"])
    for name in ("TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_LoadSessionFromSavedModel",
                 "TF_GraphOperationByName", "TF_AllocateTensor", "TF_TensorData"):
        getattr(tf, name).restype = ctypes.c_void_p
    tf.TF_Message.restype = ctypes.c_char_p
    tf.TF_TensorByteSize.restype = ctypes.c_size_t
    status = ctypes.c_void_p(tf.TF_NewStatus())

    def checked() -> None:
        if tf.TF_GetCode(status):
            sys.exit(tf.TF_Message(status).decode())

    graph = ctypes.c_void_p(tf.TF_NewGraph())
    tags = (ctypes.c_char_p * 1)(b"serve")
    session = ctypes.c_void_p(tf.TF_LoadSessionFromSavedModel(
        ctypes.c_void_p(tf.TF_NewSessionOptions()), None, job["model"].encode(), tags, 1, graph, None, status
    ))
    checked()

    def output(tensor: str) -> Output:
        operation, index = tensor.rsplit(":", 1)
        found = tf.TF_GraphOperationByName(graph, operation.encode())
        if not found:
            sys.exit(f"no operation {operation}")
        return Output(found, int(index))

    feeds, values = [], []
    for tensor, content in job["inputs"].items():
        array = np.asarray(content["values"], content["dtype"]).reshape(content["shape"])
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        value = ctypes.c_void_p(tf.TF_AllocateTensor(
            DTYPES[content["dtype"]], shape, array.ndim, ctypes.c_size_t(array.nbytes)
        ))
        ctypes.memmove(tf.TF_TensorData(value), array.tobytes(), array.nbytes)
        feeds.append(output(tensor))
        values.append(value)
    fetches = [output(tensor) for tensor in job["outputs"].values()]
    results = (ctypes.c_void_p * len(fetches))()
    tf.TF_SessionRun(
        session, None, (Output * len(feeds))(*feeds), (ctypes.c_void_p * len(feeds))(*values), len(feeds),
        (Output * len(fetches))(*fetches), results, len(fetches), None, 0, None, status,
    )
    checked()
    scores = {}
    for name, result in zip(job["outputs"], results, strict=True):
        tensor = ctypes.c_void_p(result)
        raw = ctypes.string_at(tf.TF_TensorData(tensor), tf.TF_TensorByteSize(tensor))
        scores[name] = np.frombuffer(raw, np.float32).tolist()
    json.dump(scores, sys.stdout)


if __name__ == "__main__":
    main()
