"""TensorFlow's start-up lines are left out; everything else on standard error stays."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
STARTS = (
    'import os, sys\n'
    'os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n"\n'
    '         b"I0000 00:00:1795882596.383109   19409 port.cc:153] oneDNN custom operations are on.\\n"\n'
    '         b"E0000 00:00:1758131045.203198 3722035 cuda_dnn.cc:8579] Unable to register cuDNN factory\\n"\n'
    '         b"2025-09-17 14:44:05.157831: I external/local_xla/cudart_stub.cc:32] Could not find cuda drivers\\n")\n'
)


def imported(tmp_path: pathlib.Path, body: str, **environment: str) -> subprocess.CompletedProcess:
    """A process that imports dlen_cam2, and a package `tensorflow` that starts as the real one does and runs `body`."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(STARTS + body)
    code = 'import dlen_cam2.utils.quiet_start as q, os, tensorflow; os.write(2, b"I0000 00:00: later\\n")'
    variables = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, timeout=60)


def test_only_startup_lines_are_left_out(tmp_path):
    """Warnings of Python and lines of ours pass, in their order, and after the import nothing is filtered."""
    done = imported(tmp_path, 'print("ours", file=sys.stderr)\nimport warnings\nwarnings.warn("careful")\n')
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and lines[0] == "ours" and "UserWarning: careful" in lines[1]
    assert lines[-1] == "I0000 00:00: later" and "oneDNN" not in done.stderr and "cuda" not in done.stderr


def test_what_is_fatal_passes(tmp_path):
    """The line with which TensorFlow aborts is shown, although the process is gone when it could pass it on."""
    done = imported(tmp_path, 'os.write(2, b"F0000 00:00:1.2 3 cpu.cc:1] no AVX on this machine\\n")\nos.abort()\n')
    assert done.returncode < 0 and done.stderr == "F0000 00:00:1.2 3 cpu.cc:1] no AVX on this machine\n"


def test_a_traceback_passes(tmp_path):
    """An import that fails says why."""
    done = imported(tmp_path, 'raise ImportError("libcudart is missing")\n')
    assert done.returncode == 1 and done.stderr.endswith("ImportError: libcudart is missing\n")


def test_all_lines_can_be_asked_for(tmp_path):
    """TF_CPP_MIN_LOG_LEVEL=0 is somebody who wants to see them."""
    done = imported(tmp_path, "", TF_CPP_MIN_LOG_LEVEL="0")
    assert "oneDNN custom operations" in done.stderr and "Unable to register cuDNN" in done.stderr


@pytest.mark.slow
def test_tensorflow_itself_starts_silently():
    """The real one, with Keras 2 and TensorFlow Recommenders, in a process as a command starts it."""
    code = "import dlen_cam2, tensorflow as tf, tensorflow_recommenders; print(tf.reduce_sum([1.0, 2.0]).numpy())"
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert (done.stdout, done.stderr) == ("3.0\n", "")
